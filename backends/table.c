/* Fills in the table of functions that the CPython types call: backend.h. */
#include "native.h"

void mf_fill_table(mf_table *out)
{
    mf_query_system(&out->system);
    out->open = mf_open;
    out->duplicate = mf_duplicate;
    out->create = mf_create;
    out->publish = mf_publish;
    out->remove = mf_remove;
    out->close = mf_close;
    out->close_section = mf_close_section;
    out->get_size = mf_get_size;
    out->set_size = mf_set_size;
    out->open_section = mf_open_section;
    out->open_memory = mf_open_memory;
    out->grow = mf_grow;
    out->map = mf_map;
    out->remap = mf_remap;
    out->extend = mf_extend;
    out->unmap = mf_unmap;
    out->flush = mf_flush;
    out->sync = mf_sync;
    out->guard = mf_guard;
    out->copy = mf_copy;
    out->search = mf_search;
    out->find = mf_find;
    out->rfind = mf_rfind;
    out->count = mf_count;
    out->advise = mf_advise;
    out->madvise = mf_madvise;
    out->set_name = mf_set_name;
    out->lock = mf_lock;
    out->unlock = mf_unlock;
    out->allow_locked = mf_allow_locked;
    out->process = mf_process;
    out->forker = mf_forker;
    out->milliseconds = mf_milliseconds;
}
