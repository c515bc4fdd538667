/* Included before everything else by the sanitized loop of a domain: the time it finds is what the fuzzer says it is, so
   that a lease ends between two packets, or just does not. */
#include <time.h>

double septum_now;

static inline int septum_clock_gettime(int clock, struct timespec *now)
{
    (void) clock;
    now->tv_sec = (time_t) septum_now;
    now->tv_nsec = (long) ((septum_now - (double) now->tv_sec) * 1e9);
    return 0;
}

#define clock_gettime septum_clock_gettime
