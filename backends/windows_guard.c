/* The Windows fault guard. A page that cannot be read raises EXCEPTION_IN_PAGE_ERROR; on Wine,
 * which gets a SIGBUS, an access violation. A page of a view cannot be replaced. So the guard
 * protects the library's own copies only: it aborts them.
 *
 * Each attempt is stored in a TLS slot of its thread. The handler sends the thread back to where
 * the attempt began. */
#include "windows_private.h"

typedef struct {
    mf_mapping *map;
    CONTEXT back;
    volatile uintptr_t fault; /* the address that faulted */
} attempt;

static volatile LONG slot =
    (LONG)TLS_OUT_OF_INDEXES; /* this value while the guard is not installed */

static LONG CALLBACK on_exception(EXCEPTION_POINTERS *exception)
{
    const EXCEPTION_RECORD *record = exception->ExceptionRecord;
    DWORD error = GetLastError();
    attempt *now;
    uintptr_t address, base;

    if (!mf_guarded())
        return EXCEPTION_CONTINUE_SEARCH;
    if (record->ExceptionCode != EXCEPTION_IN_PAGE_ERROR &&
        record->ExceptionCode != EXCEPTION_ACCESS_VIOLATION)
        return EXCEPTION_CONTINUE_SEARCH;
    now = TlsGetValue((DWORD)slot);
    SetLastError(error); /* TlsGetValue clears the last error */
    address = record->ExceptionInformation[1];
    if (now == NULL || now->fault != 0)
        return EXCEPTION_CONTINUE_SEARCH;
    base = (uintptr_t)now->map->base;
    if (address < base || address - base >= now->map->length)
        return EXCEPTION_CONTINUE_SEARCH;
    now->fault = address;
    *exception->ContextRecord = now->back;
    return EXCEPTION_CONTINUE_EXECUTION;
}

int mf_guarded(void)
{
    return slot != (LONG)TLS_OUT_OF_INDEXES;
}

int mf_guard(void)
{
    const LONG none = (LONG)TLS_OUT_OF_INDEXES;
    int error = 0;
    DWORD fresh;
    void *handler;

    if (mf_guarded())
        return 0;
    handler = AddVectoredExceptionHandler(1, on_exception);
    if (handler == NULL)
        return ERROR_NOT_ENOUGH_MEMORY; /* it sets no error code */
    fresh = TlsAlloc();
    if (fresh == TLS_OUT_OF_INDEXES)
        error = last_error();
    else if (InterlockedCompareExchange(&slot, (LONG)fresh, none) == none)
        return 0;
    else
        TlsFree(fresh); /* another thread has installed it */
    RemoveVectoredExceptionHandler(handler);
    return error;
}

/* Ends an attempt. Returns 0, or the system's code for a page that cannot be read. */
static int finish(attempt *now)
{
    size_t page;

    TlsSetValue((DWORD)slot, NULL);
    if (now->fault == 0)
        return 0;
    page = get_page_size();
    mf_mark_lost(now->map, (now->fault - (uintptr_t)now->map->base) / page * page, page);
    return ERROR_SWAPERROR;
}

int mf_copy(mf_mapping *map, char *to, ptrdiff_t to_step, const char *from, ptrdiff_t from_step,
            size_t count)
{
    attempt now;

    if (!mf_guarded()) {
        mf_move(to, to_step, from, from_step, count);
        return 0;
    }
    now.map = map;
    now.fault = 0;
    TlsSetValue((DWORD)slot, &now);
    RtlCaptureContext(&now.back); /* comes here again after a fault */
    if (now.fault == 0)
        mf_move(to, to_step, from, from_step, count);
    return finish(&now);
}

int mf_search(mf_mapping *map, mf_searcher *search, const void *haystack, size_t length,
              const void *needle, size_t needle_length, size_t *end, int64_t *out)
{
    attempt now;

    if (!mf_guarded()) {
        *out = search(haystack, length, needle, needle_length, end);
        return 0;
    }
    now.map = map;
    now.fault = 0;
    TlsSetValue((DWORD)slot, &now);
    RtlCaptureContext(&now.back); /* comes here again after a fault */
    if (now.fault == 0)
        *out = search(haystack, length, needle, needle_length, end);
    return finish(&now);
}
