/* A thread on a stack of our own, and the one block that the C library allocates for it. */
#ifndef LEDGER_THREAD_H
#define LEDGER_THREAD_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

struct thread {
    pthread_t handle;
    void *stack;
};

/* Starts a thread. A stack of our own makes the C library release its block for the thread as soon as the thread is
 * gone, instead of keeping it with a cached stack. False, with errno set, if there is no room. */
bool thread_begin(struct thread *thread, void *(*body)(void *), void *argument);
void thread_join(struct thread *thread);

/* The block that the C library has allocated for the calling thread, if it is known where. The program never asked
 * for it, but it is live in the heap all the same. Never for the main thread: its own comes from elsewhere. */
bool thread_runtime_block(void **address, size_t *size);

#endif
