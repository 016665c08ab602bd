/* Copyright (c) 2026 gpufleet.llm maintainers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * A scenario: a JSON file, kept as a flat list of (path, value), "gpus.0.ecc.current" = "1". null isn't kept. */
#ifndef SCENARIO_H
#define SCENARIO_H

/* Reads the file again; 0 when it can't be read or isn't JSON. */
int scenario_load(const char *path);

/* The value at "PREFIX.KEY" ("KEY" when the prefix is empty), or NULL. */
const char *scenario_get(const char *prefix, const char *key);

/* The same as a number; true is 1, false is 0; fallback when it isn't there. */
long long scenario_number(const char *prefix, const char *key, long long fallback);

#endif
