/* Copyright (c) 2026 gpufleet.llm maintainers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * A libcuda.so.1 that answers what the environment says: FAKE_CUDA_VERSION (13000; empty: the call fails),
 * FAKE_CUDA_INIT (what cuInit returns; "hang" never returns), FAKE_CUDA_DEVICES.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *given(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value ? value : otherwise;
}

int cuDriverGetVersion(int *version) {
    const char *value = given("FAKE_CUDA_VERSION", "13000");
    *version = atoi(value);
    return *value ? 0 : 999;
}

int cuInit(unsigned int flags) {
    const char *value = given("FAKE_CUDA_INIT", "0");
    (void)flags;
    while (strcmp(value, "hang") == 0)
        sleep(1);
    return atoi(value);
}

int cuDeviceGetCount(int *count) {
    *count = atoi(given("FAKE_CUDA_DEVICES", "1"));
    return 0;
}
