/* Copyright (c) 2026 gpufleet.llm maintainers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Just enough of a JSON reader for scenarios: objects, arrays, strings without \u, numbers, true, false, null. */
#include "scenario.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_SIZE 256

struct entry {
    char *path;
    char *value;
};

static struct entry *entries;
static size_t used, room;

static void forget(void) {
    for (size_t i = 0; i < used; i++) {
        free(entries[i].path);
        free(entries[i].value);
    }
    free(entries);
    entries = NULL;
    used = room = 0;
}

static void keep(const char *path, const char *value, size_t length) {
    if (used == room) {
        room = room ? room * 2 : 256;
        entries = realloc(entries, room * sizeof *entries);
    }
    entries[used].path = strdup(path);
    entries[used].value = strndup(value, length);
    used++;
}

static const char *space(const char *at) {
    while (at && isspace((unsigned char)*at))
        at++;
    return at;
}

/* Every parser returns where it ended, NULL when the text isn't what it should be. */
static const char *parse_value(const char *at, const char *path);

static const char *parse_string(const char *at, char *into, size_t size) {
    size_t length = 0;
    if (*at++ != '"')
        return NULL;
    for (; *at && *at != '"'; at++) {
        char letter = *at;
        if (letter == '\\' && *++at)
            letter = *at == 'n' ? '\n' : *at == 't' ? '\t' : *at;
        if (length + 1 < size)
            into[length++] = letter;
    }
    into[length] = '\0';
    return *at == '"' ? at + 1 : NULL;
}

static const char *parse_members(const char *at, const char *path, int is_object) {
    char close = is_object ? '}' : ']';
    char name[PATH_SIZE], below[PATH_SIZE * 2 + 2];
    int count = 0;
    at = space(at + 1);
    while (at && *at && *at != close) {
        if (is_object) {
            at = parse_string(at, name, sizeof name);
            at = space(at);
            if (!at || *at++ != ':')
                return NULL;
        } else {
            snprintf(name, sizeof name, "%d", count);
        }
        snprintf(below, sizeof below, "%s%s%s", path, *path ? "." : "", name);
        if (strlen(below) >= PATH_SIZE)
            return NULL;
        at = space(parse_value(space(at), below));
        count++;
        if (at && *at == ',')
            at = space(at + 1);
        else if (at && *at != close)
            return NULL;
    }
    if (!at || *at != close)
        return NULL;
    snprintf(below, sizeof below, "%s%s#", path, *path ? "." : "");
    snprintf(name, sizeof name, "%d", count);
    keep(below, name, strlen(name));
    return at + 1;
}

static const char *parse_value(const char *at, const char *path) {
    char text[PATH_SIZE];
    size_t length;
    if (!at || !*at)
        return NULL;
    if (*at == '{' || *at == '[')
        return parse_members(at, path, *at == '{');
    if (*at == '"') {
        at = parse_string(at, text, sizeof text);
        if (at)
            keep(path, text, strlen(text));
        return at;
    }
    length = strcspn(at, ",]} \t\r\n");
    if (length == 4 && !strncmp(at, "true", 4))
        keep(path, "1", 1);
    else if (length == 5 && !strncmp(at, "false", 5))
        keep(path, "0", 1);
    else if (*at == '-' || isdigit((unsigned char)*at))
        keep(path, at, length);
    else if (length != 4 || strncmp(at, "null", 4))
        return NULL;
    return at + length;
}

static int by_path(const void *left, const void *right) {
    return strcmp(((const struct entry *)left)->path, ((const struct entry *)right)->path);
}

int scenario_load(const char *path) {
    FILE *file = fopen(path, "rb");
    const char *end = NULL;
    char *text;
    long size;
    forget();
    if (!file)
        return 0;
    fseek(file, 0, SEEK_END);
    size = ftell(file);
    rewind(file);
    text = calloc(1, (size_t)size + 1);
    if (fread(text, 1, (size_t)size, file) == (size_t)size)
        end = space(parse_value(space(text), ""));
    fclose(file);
    if (end && *end)
        end = NULL;
    free(text);
    if (end)
        qsort(entries, used, sizeof *entries, by_path);
    else
        forget();
    return end != NULL;
}

const char *scenario_get(const char *prefix, const char *key) {
    char path[PATH_SIZE * 2];
    struct entry wanted = {path, NULL}, *found;
    snprintf(path, sizeof path, "%s%s%s", prefix, *prefix ? "." : "", key);
    found = used ? bsearch(&wanted, entries, used, sizeof *entries, by_path) : NULL;
    return found ? found->value : NULL;
}

long long scenario_number(const char *prefix, const char *key, long long fallback) {
    const char *value = scenario_get(prefix, key);
    return value ? strtoll(value, NULL, 0) : fallback;
}
