/* Copyright (c) 2026 gpufleet.llm maintainers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * A stand-in for libnvidia-ml.so.1: the functions that the collection asks, with NVML's own types and return codes.
 * What they answer is a scenario: the file named by GPUFLEET_NVML_SCENARIO, else scenario.json beside the library.
 * It is read anew by every nvmlInit. A value that isn't in it is NVML_ERROR_NOT_SUPPORTED.
 *
 * "errors": {"nvmlDeviceGetName": 15} at the top or in a GPU makes a function fail; "*" in a GPU means each of them.
 * "hang", "crash": functions that never answer, that kill the process; at the top or in a GPU.
 * "latency_microseconds": how long each call takes. GPUFLEET_NVML_LOG names a file that gets every call's name. */
#define _GNU_SOURCE
#include "stub.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct nvmlDevice_st devices[MAX_GPUS][MAX_MIG + 1];
static int started;

static void note(const char *function) {
    const char *log = getenv("GPUFLEET_NVML_LOG");
    FILE *file = log ? fopen(log, "a") : NULL;
    if (file) {
        fprintf(file, "%s\n", function);
        fclose(file);
    }
}

static void pass_time(void) {
    long long latency = scenario_number("", "latency_microseconds", 0);
    if (latency > 0)
        usleep((useconds_t)latency);
}

nvmlReturn_t check(const char *prefix, const char *function) {
    char key[128];
    snprintf(key, sizeof key, "hang.%s", function);
    while (scenario_number(prefix, key, 0))
        sleep(3600);
    snprintf(key, sizeof key, "crash.%s", function);
    if (scenario_number(prefix, key, 0))
        abort();
    snprintf(key, sizeof key, "errors.%s", function);
    return (nvmlReturn_t)scenario_number(prefix, key, scenario_number(prefix, "errors.*", NVML_SUCCESS));
}

nvmlReturn_t enter(nvmlDevice_t device, const char *function) {
    nvmlReturn_t rc;
    note(function);
    if (!started)
        return NVML_ERROR_UNINITIALIZED;
    pass_time();
    rc = check("", function);
    return rc == NVML_SUCCESS && device ? check(device->prefix, function) : rc;
}

const char *text_of(nvmlDevice_t device, const char *key) {
    return scenario_get(device ? device->prefix : "", key);
}

nvmlReturn_t give_text(nvmlDevice_t device, const char *key, char *into, unsigned int size) {
    const char *value = text_of(device, key);
    if (!value)
        return NVML_ERROR_NOT_SUPPORTED;
    if (strlen(value) >= size)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    strcpy(into, value);
    return NVML_SUCCESS;
}

int numbers(nvmlDevice_t device, const char *const *keys, long long *into, int count) {
    for (int i = 0; i < count; i++) {
        const char *value = text_of(device, keys[i]);
        if (!value)
            return 0;
        into[i] = strtoll(value, NULL, 0);
    }
    return 1;
}

nvmlReturn_t give_uint(nvmlDevice_t device, const char *key, unsigned int *into) {
    const char *value = text_of(device, key);
    if (!value)
        return NVML_ERROR_NOT_SUPPORTED;
    *into = (unsigned int)strtoll(value, NULL, 0);
    return NVML_SUCCESS;
}

/* --- the library itself --- */

static void find_scenario(char *into, size_t size) {
    const char *named = getenv("GPUFLEET_NVML_SCENARIO");
    Dl_info self;
    snprintf(into, size, "%s", named ? named : "scenario.json");
    if (!named && dladdr((void *)find_scenario, &self) && strrchr(self.dli_fname, '/'))
        snprintf(into, size, "%.*s/scenario.json", (int)(strrchr(self.dli_fname, '/') - self.dli_fname), self.dli_fname);
}

static nvmlReturn_t start(const char *function) {
    char path[4096];
    nvmlReturn_t rc;
    find_scenario(path, sizeof path);
    if (!scenario_load(path)) {
        fprintf(stderr, "stub libnvidia-ml: no scenario at %s\n", path);
        return NVML_ERROR_UNKNOWN;
    }
    note(function);
    pass_time();
    rc = check("", function);
    started += rc == NVML_SUCCESS;
    return rc;
}

nvmlReturn_t nvmlInitWithFlags(unsigned int flags) {
    (void)flags;
    return start(__func__);
}

nvmlReturn_t nvmlInit_v2(void) { return start("nvmlInitWithFlags"); }

nvmlReturn_t nvmlShutdown(void) {
    ENTER(NULL);
    started--;
    return NVML_SUCCESS;
}

const char *nvmlErrorString(nvmlReturn_t rc) {
    static const struct {
        nvmlReturn_t code;
        const char *text;
    } texts[] = {
        {NVML_SUCCESS, "Success"},
        {NVML_ERROR_UNINITIALIZED, "Uninitialized"},
        {NVML_ERROR_INVALID_ARGUMENT, "Invalid Argument"},
        {NVML_ERROR_NOT_SUPPORTED, "Not Supported"},
        {NVML_ERROR_NO_PERMISSION, "Insufficient Permissions"},
        {NVML_ERROR_NOT_FOUND, "Not Found"},
        {NVML_ERROR_DRIVER_NOT_LOADED, "Driver Not Loaded"},
        {NVML_ERROR_GPU_IS_LOST, "GPU is lost"},
        {NVML_ERROR_RESET_REQUIRED, "GPU requires reset"},
        {NVML_ERROR_LIB_RM_VERSION_MISMATCH, "Driver/library version mismatch"},
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (texts[i].code == rc)
            return texts[i].text;
    return "Unknown Error";
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length) {
    ENTER(NULL);
    return give_text(NULL, "driver.version", version, length);
}

/* nvml.h lists no "uninitialized" for this one. */
nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned int length) {
    note(__func__);
    return give_text(NULL, "driver.nvml_version", version, length);
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version) {
    ENTER(NULL);
    return give_uint(NULL, "driver.cuda_version_plain", (unsigned int *)version);
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version) {
    ENTER(NULL);
    nvmlReturn_t rc = give_uint(NULL, "driver.cuda_version", (unsigned int *)version);
    return rc == NVML_ERROR_NOT_SUPPORTED ? NVML_ERROR_LIBRARY_NOT_FOUND : rc;
}

nvmlReturn_t nvmlSystemGetProcessName(unsigned int pid, char *name, unsigned int length) {
    char key[64];
    ENTER(NULL);
    snprintf(key, sizeof key, "process_names.%u", pid);
    return give_text(NULL, key, name, length) == NVML_SUCCESS ? NVML_SUCCESS : NVML_ERROR_NOT_FOUND;
}

/* --- which devices there are --- */

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count) {
    ENTER(NULL);
    *count = (unsigned int)scenario_number("gpus", "#", 0);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device) {
    ENTER(NULL);
    if (index >= MAX_GPUS || index >= (unsigned int)scenario_number("gpus", "#", 0))
        return NVML_ERROR_INVALID_ARGUMENT;
    *device = &devices[index][0];
    snprintf((*device)->prefix, sizeof (*device)->prefix, "gpus.%u", index);
    return check((*device)->prefix, __func__);
}

TEXT(nvmlDeviceGetUUID, "uuid")
TEXT(nvmlDeviceGetName, "name")
TEXT(nvmlDeviceGetSerial, "serial")
TEXT(nvmlDeviceGetVbiosVersion, "vbios_version")
UINT(nvmlDeviceGetArchitecture, "architecture")
UINT(nvmlDeviceGetMinorNumber, "minor")
UINT(nvmlDeviceGetGpuInstanceId, "gpu_instance_id")
UINT(nvmlDeviceGetComputeInstanceId, "compute_instance_id")

nvmlReturn_t nvmlDeviceGetPersistenceMode(nvmlDevice_t device, nvmlEnableState_t *mode) {
    ENTER(device);
    return give_uint(device, "persistence", mode);
}

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci) {
    ENTER(device);
    const char *bus_id = text_of(device, "pci.bus_id");
    if (!bus_id)
        return NVML_ERROR_NOT_SUPPORTED;
    memset(pci, 0, sizeof *pci);
    snprintf(pci->busId, sizeof pci->busId, "%s", bus_id);
    sscanf(bus_id, "%x:%x:%x", &pci->domain, &pci->bus, &pci->device);
    snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, "%04X:%02X:%02X.0", pci->domain & 0xffff, pci->bus & 0xff,
             pci->device & 0xff);
    pci->pciDeviceId = (unsigned int)scenario_number(device->prefix, "pci.device_id", 0);
    pci->pciSubSystemId = (unsigned int)scenario_number(device->prefix, "pci.subsystem_id", 0);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor) {
    ENTER(device);
    const char *value = text_of(device, "compute_capability");
    return value && sscanf(value, "%d.%d", major, minor) == 2 ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
}

static const char *const MEMORY[] = {"memory_mib.total", "memory_mib.free", "memory_mib.used", "memory_mib.reserved"};

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory) {
    long long v[3];
    ENTER(device);
    if (!numbers(device, MEMORY, v, 3))
        return NVML_ERROR_NOT_SUPPORTED;
    *memory = (nvmlMemory_t){.total = v[0] * MIB, .free = v[1] * MIB, .used = v[2] * MIB};
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory) {
    long long v[4];
    ENTER(device);
    if (memory->version != nvmlMemory_v2)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    if (!numbers(device, MEMORY, v, 4))
        return NVML_ERROR_NOT_SUPPORTED;
    memory->total = v[0] * MIB;
    memory->free = v[1] * MIB;
    memory->used = v[2] * MIB;
    memory->reserved = v[3] * MIB;
    return NVML_SUCCESS;
}
