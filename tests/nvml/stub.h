/* Copyright (c) 2026 gpufleet.llm maintainers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What the parts of the stub share: every function enters, then gives what the scenario holds. */
#ifndef STUB_H
#define STUB_H

#include "scenario.h"

#include <nvml.h>

#define MAX_GPUS 32
#define MAX_MIG 8
#define MIB 1048576ULL

/* Where in the scenario a device's values are: "gpus.0", "gpus.0.mig.devices.1". */
struct nvmlDevice_st {
    char prefix[64];
};

extern struct nvmlDevice_st devices[MAX_GPUS][MAX_MIG + 1];

/* Hang, crash or fail, when the scenario says so at the prefix. */
nvmlReturn_t check(const char *prefix, const char *function);

/* What every call does first: leave a trace, take its time, check. */
nvmlReturn_t enter(nvmlDevice_t device, const char *function);

/* The value of a key, NULL when the scenario has none. */
const char *text_of(nvmlDevice_t device, const char *key);

/* They give NVML_ERROR_NOT_SUPPORTED when the scenario has no such value. */
nvmlReturn_t give_text(nvmlDevice_t device, const char *key, char *into, unsigned int size);
nvmlReturn_t give_uint(nvmlDevice_t device, const char *key, unsigned int *into);

/* Numbers of one record: all of them, or 0. */
int numbers(nvmlDevice_t device, const char *const *keys, long long *into, int count);

#define ENTER(device)                                                                                                  \
    do {                                                                                                               \
        nvmlReturn_t entered = enter(device, __func__);                                                                \
        if (entered != NVML_SUCCESS)                                                                                   \
            return entered;                                                                                            \
    } while (0)

#define TEXT(function, key)                                                                                            \
    nvmlReturn_t function(nvmlDevice_t device, char *text, unsigned int length) {                                      \
        ENTER(device);                                                                                                 \
        return give_text(device, key, text, length);                                                                   \
    }
#define UINT(function, key)                                                                                            \
    nvmlReturn_t function(nvmlDevice_t device, unsigned int *value) {                                                  \
        ENTER(device);                                                                                                 \
        return give_uint(device, key, value);                                                                          \
    }

#endif
