/* What backend.h needs around it, for the C compiler. */
#ifndef MAPPEDFILE_NATIVE_H
#define MAPPEDFILE_NATIVE_H

#include <stddef.h>
#include <stdint.h>

/* The characters of a path, as the system takes them. */
#ifdef _WIN32
typedef wchar_t mf_char;
#else
typedef char mf_char;
#endif

#include "backend.h"
#include "search.h"

#endif
