// Copyright (c) 2026 gpufleet.llm maintainers
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

import crypto from 'crypto';

const BEARER = /^bearer ([\x21-\x7e]{16,256})$/i;

// SHA-256 of the request's API key in hexadecimal, or 'none' when it carries no key or more than one.
function keyDigest(r) {
    const headers = r.rawHeadersIn.filter((header) => header[0].toLowerCase() === 'authorization');
    if (headers.length !== 1) {
        return 'none';
    }
    const match = BEARER.exec(headers[0][1]);
    return match ? crypto.createHash('sha256').update(match[1]).digest('hex') : 'none';
}

// Passes a response on, notes when its first byte of data came and whether its end came.
function measure(r, data, flags) {
    if (data.length > 0 && r.variables.first_byte_seconds === 'null') {
        r.variables.first_byte_seconds = r.variables.request_time;
    }
    if (flags.last) {
        r.variables.end_of_stream = 'true';
    }
    r.sendBuffer(data, flags);
}

export default { keyDigest, measure };
