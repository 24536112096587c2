"""Memory that is looked into all over: on huge pages where it is large, so that no page is missed then."""

cdef extern from *:
    """
    #include <stdlib.h>
    #include <sys/mman.h>

    #define USPCAP_HUGE_PAGE ((size_t) 2 << 20)

    /* Zeroed memory, on huge pages where it is large. */
    static void *uspcap_zeroed(size_t bytes) {
        char *memory, *aligned;
        if (bytes < 2 * USPCAP_HUGE_PAGE)
            return calloc(1, bytes);
        memory = mmap(NULL, bytes + USPCAP_HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED)
            return NULL;
        aligned = (char *) (((size_t) memory + USPCAP_HUGE_PAGE - 1) & ~(USPCAP_HUGE_PAGE - 1));
        if (aligned != memory)
            munmap(memory, aligned - memory);
        if (aligned != memory + USPCAP_HUGE_PAGE)
            munmap(aligned + bytes, memory + USPCAP_HUGE_PAGE - aligned);
        madvise(aligned, bytes, MADV_HUGEPAGE);
        return aligned;
    }

    /* Give back what uspcap_zeroed gave for so many bytes. */
    static void uspcap_release(void *memory, size_t bytes) {
        if (bytes < 2 * USPCAP_HUGE_PAGE)
            free(memory);
        else if (memory)
            munmap(memory, bytes);
    }
    """
    void *zeroed "uspcap_zeroed"(size_t) nogil
    void release "uspcap_release"(void *, size_t) nogil
