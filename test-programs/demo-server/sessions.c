#include "sessions.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PLACES = 1 << 13 };

struct session {
    uint64_t visitor;
    uint64_t visits;
    char *address;
    unsigned char interests[256];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct session *places[PLACES];

static struct session *session_new(uint64_t visitor)
{
    struct session *session = calloc(1, sizeof *session);
    char address[64];
    snprintf(address, sizeof address, "%llu.visitors.example", (unsigned long long)visitor);
    if (session == NULL || (session->address = strdup(address)) == NULL)
        abort();
    session->visitor = visitor;
    return session;
}

void sessions_open(void)
{
    for (uint64_t visitor = 0; visitor < PLACES; visitor++)
        places[visitor] = session_new(visitor);
}

void sessions_visit(uint64_t visitor)
{
    struct session **place = &places[visitor % PLACES];
    struct session *leaving = NULL;
    pthread_mutex_lock(&lock);
    if ((*place)->visitor != visitor) {
        leaving = *place;
        *place = session_new(visitor);
    }
    (*place)->visits++;
    pthread_mutex_unlock(&lock);
    if (leaving != NULL)
        free(leaving->address);
    free(leaving);
}
