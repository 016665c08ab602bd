/* Copyright (c) 2026 gpufleet.llm maintainers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Health, links, MIG and processes of the stub's devices. */
#include "stub.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int index_of(nvmlDevice_t device) { return (int)((device - &devices[0][0]) / (MAX_MIG + 1)); }

UINT(nvmlDeviceGetPowerUsage, "power_milliwatts.usage")
UINT(nvmlDeviceGetEnforcedPowerLimit, "power_milliwatts.enforced")
UINT(nvmlDeviceGetPowerManagementDefaultLimit, "power_milliwatts.default")
UINT(nvmlDeviceGetCurrPcieLinkGeneration, "pcie.generation")
UINT(nvmlDeviceGetMaxPcieLinkGeneration, "pcie.generation_max")
UINT(nvmlDeviceGetGpuMaxPcieLinkGeneration, "pcie.generation_gpu_max")
UINT(nvmlDeviceGetCurrPcieLinkWidth, "pcie.width")
UINT(nvmlDeviceGetMaxPcieLinkWidth, "pcie.width_max")
UINT(nvmlDeviceGetMaxMigDeviceCount, "mig.max")

nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t device, nvmlEnableState_t *current, nvmlEnableState_t *pending) {
    static const char *const keys[] = {"ecc.current", "ecc.pending"};
    long long v[2];
    ENTER(device);
    if (!numbers(device, keys, v, 2))
        return NVML_ERROR_NOT_SUPPORTED;
    *current = (nvmlEnableState_t)v[0];
    *pending = (nvmlEnableState_t)v[1];
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, nvmlMemoryErrorType_t kind, nvmlEccCounterType_t counter,
                                         unsigned long long *count) {
    char key[64];
    ENTER(device);
    snprintf(key, sizeof key, "ecc.%s_%s", kind == NVML_MEMORY_ERROR_TYPE_CORRECTED ? "corrected" : "uncorrected",
             counter == NVML_VOLATILE_ECC ? "volatile" : "aggregate");
    if (!text_of(device, key))
        return NVML_ERROR_NOT_SUPPORTED;
    *count = (unsigned long long)scenario_number(device->prefix, key, 0);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t device, unsigned int *corrected, unsigned int *uncorrected,
                                       unsigned int *pending, unsigned int *failure) {
    static const char *const keys[] = {"remapped_rows.correctable", "remapped_rows.uncorrectable",
                                       "remapped_rows.pending", "remapped_rows.failure"};
    long long v[4];
    ENTER(device);
    if (!numbers(device, keys, v, 4))
        return NVML_ERROR_NOT_SUPPORTED;
    *corrected = (unsigned int)v[0];
    *uncorrected = (unsigned int)v[1];
    *pending = (unsigned int)v[2];
    *failure = (unsigned int)v[3];
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetRowRemapperHistogram(nvmlDevice_t device, nvmlRowRemapperHistogramValues_t *values) {
    static const char *const keys[] = {"remapped_rows.histogram.max", "remapped_rows.histogram.high",
                                       "remapped_rows.histogram.partial", "remapped_rows.histogram.low",
                                       "remapped_rows.histogram.none"};
    long long v[5];
    ENTER(device);
    if (!numbers(device, keys, v, 5))
        return NVML_ERROR_NOT_SUPPORTED;
    *values = (nvmlRowRemapperHistogramValues_t){(unsigned int)v[0], (unsigned int)v[1], (unsigned int)v[2],
                                                 (unsigned int)v[3], (unsigned int)v[4]};
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetRetiredPages(nvmlDevice_t device, nvmlPageRetirementCause_t cause, unsigned int *count,
                                       unsigned long long *addresses) {
    unsigned int pages, room = *count;
    ENTER(device);
    if (give_uint(device,
                  cause == NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR ? "retired_pages.double_bit"
                                                                          : "retired_pages.single_bit",
                  &pages) != NVML_SUCCESS)
        return NVML_ERROR_NOT_SUPPORTED;
    *count = pages;
    if (pages > room)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    for (unsigned int i = 0; addresses && i < pages; i++)
        addresses[i] = 0x1000ULL * (i + 1);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetRetiredPagesPendingStatus(nvmlDevice_t device, nvmlEnableState_t *pending) {
    ENTER(device);
    return give_uint(device, "retired_pages.pending", pending);
}

nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *values) {
    char key[32];
    ENTER(device);
    for (int i = 0; i < count; i++) {
        snprintf(key, sizeof key, "fields.%u", values[i].fieldId);
        const char *text = text_of(device, key);
        values[i].nvmlReturn = text ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
        if (!text)
            continue;
        values[i].valueType = strchr(text, '.') ? NVML_VALUE_TYPE_DOUBLE
                              : *text == '-'    ? NVML_VALUE_TYPE_SIGNED_INT
                                                : NVML_VALUE_TYPE_UNSIGNED_INT;
        if (values[i].valueType == NVML_VALUE_TYPE_DOUBLE)
            values[i].value.dVal = strtod(text, NULL);
        else
            values[i].value.siVal = (int)strtoll(text, NULL, 0);
    }
    return NVML_SUCCESS;
}

static nvmlReturn_t give_reasons(nvmlDevice_t device, unsigned long long *reasons) {
    if (!text_of(device, "clocks_event_reasons"))
        return NVML_ERROR_NOT_SUPPORTED;
    *reasons = (unsigned long long)scenario_number(device->prefix, "clocks_event_reasons", 0);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t device, unsigned long long *reasons) {
    ENTER(device);
    return give_reasons(device, reasons);
}

nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t device, unsigned long long *reasons) {
    ENTER(device);
    return give_reasons(device, reasons);
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, nvmlTemperatureSensors_t sensor, unsigned int *value) {
    ENTER(device);
    (void)sensor;
    return give_uint(device, "temperature.gpu", value);
}

nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_t *temperature) {
    ENTER(device);
    if (temperature->version != nvmlTemperature_v1)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    return give_uint(device, "temperature.gpu", (unsigned int *)&temperature->temperature);
}

nvmlReturn_t nvmlDeviceGetTemperatureThreshold(nvmlDevice_t device, nvmlTemperatureThresholds_t which,
                                               unsigned int *value) {
    char key[64];
    ENTER(device);
    snprintf(key, sizeof key, "temperature.thresholds.%d", (int)which);
    return give_uint(device, key, value);
}

nvmlReturn_t nvmlDeviceGetMarginTemperature(nvmlDevice_t device, nvmlMarginTemperature_t *margin) {
    ENTER(device);
    if (margin->version != nvmlMarginTemperature_v1)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    return give_uint(device, "temperature.margin", (unsigned int *)&margin->marginTemperature);
}

nvmlReturn_t nvmlDeviceGetPowerManagementLimitConstraints(nvmlDevice_t device, unsigned int *low, unsigned int *high) {
    static const char *const keys[] = {"power_milliwatts.min", "power_milliwatts.max"};
    long long v[2];
    ENTER(device);
    if (!numbers(device, keys, v, 2))
        return NVML_ERROR_NOT_SUPPORTED;
    *low = (unsigned int)v[0];
    *high = (unsigned int)v[1];
    return NVML_SUCCESS;
}

/* nvlink.states is a string of 0 and 1, one for each link. */
nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t device, unsigned int link, nvmlEnableState_t *active) {
    ENTER(device);
    const char *states = text_of(device, "nvlink.states");
    if (!states)
        return NVML_ERROR_NOT_SUPPORTED;
    if (link >= strlen(states))
        return NVML_ERROR_INVALID_ARGUMENT;
    *active = states[link] == '1' ? NVML_FEATURE_ENABLED : NVML_FEATURE_DISABLED;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetNvLinkVersion(nvmlDevice_t device, unsigned int link, unsigned int *version) {
    ENTER(device);
    (void)link;
    return give_uint(device, "nvlink.version", version);
}

/* --- fabric: the same facts in the four shapes that drivers have had for them --- */

struct fabric {
    long long state, status, clique, health_mask, health_summary;
    unsigned char cluster[NVML_GPU_FABRIC_UUID_LEN];
};

static int read_fabric(nvmlDevice_t device, struct fabric *fabric) {
    const char *uuid = text_of(device, "fabric.cluster_uuid");
    memset(fabric, 0, sizeof *fabric);
    if (!text_of(device, "fabric.state"))
        return 0;
    fabric->state = scenario_number(device->prefix, "fabric.state", 0);
    fabric->status = scenario_number(device->prefix, "fabric.status", 0);
    fabric->clique = scenario_number(device->prefix, "fabric.clique", 0);
    fabric->health_mask = scenario_number(device->prefix, "fabric.health_mask", 0);
    fabric->health_summary = scenario_number(device->prefix, "fabric.health_summary", 0);
    for (int i = 0; uuid && *uuid && i < NVML_GPU_FABRIC_UUID_LEN; uuid++) {
        unsigned int byte;
        if (*uuid == '-' || sscanf(uuid, "%2x", &byte) != 1)
            continue;
        fabric->cluster[i++] = (unsigned char)byte;
        uuid++;
    }
    return 1;
}

nvmlReturn_t nvmlDeviceGetGpuFabricInfo(nvmlDevice_t device, nvmlGpuFabricInfo_t *info) {
    struct fabric fabric;
    ENTER(device);
    if (!read_fabric(device, &fabric))
        return NVML_ERROR_NOT_SUPPORTED;
    memcpy(info->clusterUuid, fabric.cluster, sizeof fabric.cluster);
    info->status = (nvmlReturn_t)fabric.status;
    info->cliqueId = (unsigned int)fabric.clique;
    info->state = (nvmlGpuFabricState_t)fabric.state;
    return NVML_SUCCESS;
}

/* driver.fabric_version: the newest version of the structure that this driver knows. */
nvmlReturn_t nvmlDeviceGetGpuFabricInfoV(nvmlDevice_t device, nvmlGpuFabricInfoV_t *info) {
    struct fabric fabric;
    unsigned int known = (unsigned int)scenario_number("driver", "fabric_version", 3);
    ENTER(device);
    if ((info->version != nvmlGpuFabricInfo_v2 && info->version != nvmlGpuFabricInfo_v3) || info->version >> 24 > known)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    if (!read_fabric(device, &fabric))
        return NVML_ERROR_NOT_SUPPORTED;
    memcpy(info->clusterUuid, fabric.cluster, sizeof fabric.cluster);
    info->status = (nvmlReturn_t)fabric.status;
    info->cliqueId = (unsigned int)fabric.clique;
    info->state = (nvmlGpuFabricState_t)fabric.state;
    info->healthMask = (unsigned int)fabric.health_mask;
    if (info->version == nvmlGpuFabricInfo_v3)
        info->healthSummary = (unsigned char)fabric.health_summary;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetGpuFabricInfo_v4(nvmlDevice_t device, nvmlGpuFabricInfo_v4_t *info) {
    struct fabric fabric;
    ENTER(device);
    if (!read_fabric(device, &fabric))
        return NVML_ERROR_NOT_SUPPORTED;
    memset(info, 0, sizeof *info);
    memcpy(info->clusterUuid, fabric.cluster, sizeof fabric.cluster);
    info->status = (nvmlReturn_t)fabric.status;
    info->cliques[0].type = NVML_GPU_FABRIC_CLIQUE_TYPE_UNICAST_POINTER;
    info->cliques[0].id = (unsigned int)fabric.clique;
    info->numCliques = 1;
    info->state = (nvmlGpuFabricState_t)fabric.state;
    info->healthMask = (unsigned int)fabric.health_mask;
    info->healthSummary = (unsigned char)fabric.health_summary;
    return NVML_SUCCESS;
}

/* --- MIG --- */

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *current, unsigned int *pending) {
    static const char *const keys[] = {"mig.current", "mig.pending"};
    long long v[2];
    ENTER(device);
    if (!numbers(device, keys, v, 2))
        return NVML_ERROR_NOT_SUPPORTED;
    *current = (unsigned int)v[0];
    *pending = (unsigned int)v[1];
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned int index, nvmlDevice_t *mig) {
    ENTER(device);
    if (index >= MAX_MIG)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (index >= (unsigned int)scenario_number(device->prefix, "mig.devices.#", 0))
        return NVML_ERROR_NOT_FOUND;
    *mig = device + 1 + index;
    snprintf((*mig)->prefix, sizeof (*mig)->prefix, "gpus.%d.mig.devices.%u", index_of(device), index);
    return NVML_SUCCESS;
}

/* --- processes --- */

static nvmlReturn_t give_processes(nvmlDevice_t device, const char *kind, unsigned int *count, nvmlProcessInfo_t *infos) {
    unsigned int room = *count, found = 0;
    long long listed = scenario_number(device->prefix, "processes.#", -1);
    if (listed < 0)
        return NVML_ERROR_NOT_SUPPORTED;
    for (long long i = 0; i < listed; i++) {
        char prefix[128];
        snprintf(prefix, sizeof prefix, "%s.processes.%lld", device->prefix, i);
        const char *has = scenario_get(prefix, "kind");
        if (strcmp(has ? has : "compute", kind))
            continue;
        if (found < room && infos) {
            const char *memory = scenario_get(prefix, "memory_mib");
            infos[found] = (nvmlProcessInfo_t){
                .pid = (unsigned int)scenario_number(prefix, "pid", 0),
                .usedGpuMemory = memory ? strtoull(memory, NULL, 0) * MIB : (unsigned long long)NVML_VALUE_NOT_AVAILABLE,
                .gpuInstanceId = 0xffffffff,
                .computeInstanceId = 0xffffffff,
            };
        }
        found++;
    }
    *count = found;
    return found > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

#define PROCESSES(function, kind)                                                                                      \
    nvmlReturn_t function(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_t *infos) {                        \
        ENTER(device);                                                                                                 \
        return give_processes(device, kind, count, infos);                                                             \
    }

PROCESSES(nvmlDeviceGetComputeRunningProcesses_v3, "compute")
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v3, "graphics")
PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v3, "mps")
nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v2(nvmlDevice_t, unsigned int *, nvmlProcessInfo_t *);
PROCESSES(nvmlDeviceGetComputeRunningProcesses_v2, "compute")
