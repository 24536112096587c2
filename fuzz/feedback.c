/* Notifies a fuzzer that an input went where none had been before.
 *
 * Linked into every compiled module of a build with -Dinstrument=sanitizers. The compiler calls
 * __sanitizer_cov_trace_pc at every basic block (-fsanitize-coverage=trace-pc); a pair of blocks executed one after
 * the other and not seen so far counts as one discovery. Places are kept relative to where the module was loaded,
 * so that the same inputs make the same discoveries in every process. Counts are not atomic: two threads may lose
 * one, never invent one.
 */
#include <stdint.h>

enum { PLACES = 1 << 18 };

/* The start of this module in memory, defined by the linker. */
extern const char __ehdr_start[] __attribute__((visibility("hidden")));

__attribute__((visibility("default"))) uint64_t uspcap_discoveries;

static uint8_t seen[PLACES];
/* At a fixed distance from the thread's own memory: to ask the dynamic linker for it takes a fifth of a whole run. */
static __thread uint32_t previous __attribute__((tls_model("initial-exec")));

__attribute__((visibility("hidden"))) void __sanitizer_cov_trace_pc(void)
{
    uint32_t here = (uint32_t)((uintptr_t)__builtin_return_address(0) - (uintptr_t)__ehdr_start);
    uint32_t place = (here * 2654435761u ^ previous) >> 14;

    previous = here * 2246822519u >> 1;
    if (!seen[place]) {
        seen[place] = 1;
        uspcap_discoveries++;
    }
}
