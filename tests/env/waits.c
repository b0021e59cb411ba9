/* libfaketime steps the clock that a program reads, and knows the waits of POSIX. librdkafka waits with those of C11, which are
 * the same inside the C library: they are led to where libfaketime sees them, or each wait under a clock that is three hours
 * ahead would last three hours. */
#include <errno.h>
#include <pthread.h>
#include <threads.h>

int cnd_timedwait(cnd_t *condition, mtx_t *mutex, const struct timespec *until)
{
    int outcome = pthread_cond_timedwait((pthread_cond_t *)condition, (pthread_mutex_t *)mutex, until);
    return outcome == 0 ? thrd_success : outcome == ETIMEDOUT ? thrd_timedout : thrd_error;
}
