#include "thread.h"

#include "blocks.h"

#include <errno.h>
#include <sys/mman.h>

enum { STACK_SIZE = 256 << 10 };

bool thread_begin(struct thread *thread, void *(*body)(void *), void *argument)
{
    pthread_attr_t attributes;
    thread->stack = pages_map(STACK_SIZE);
    pthread_attr_init(&attributes);
    pthread_attr_setstack(&attributes, thread->stack, STACK_SIZE);
    int failure = pthread_create(&thread->handle, &attributes, body, argument);
    pthread_attr_destroy(&attributes);
    if (failure != 0) {
        munmap(thread->stack, STACK_SIZE);
        errno = failure;
    }
    return failure == 0;
}

void thread_join(struct thread *thread)
{
    pthread_join(thread->handle, NULL);
    munmap(thread->stack, STACK_SIZE);
}

/* It is the vector of the thread's TLS blocks, the DTV: calloc of (capacity + 2) entries, of which the thread pointer
 * refers to the second and the first holds the capacity (glibc 2.36, elf/dl-tls.c, allocate_dtv and
 * sysdeps/x86_64/nptl/tls.h, INSTALL_DTV). With a prefixed heap it lives in another heap than the one under test. */
bool thread_runtime_block(void **address, size_t *size)
{
#if defined(__GLIBC__) && defined(__x86_64__) && !defined(LEDGER_PREFIX)
    struct entry {
        size_t capacity;
        void *to_free;
    } *vector;
    __asm__("mov %%fs:8, %0" : "=r"(vector));
    *address = vector - 1;
    *size = (vector[-1].capacity + 2) * sizeof(struct entry);
    return true;
#else
    (void)address;
    (void)size;
    return false;
#endif
}
