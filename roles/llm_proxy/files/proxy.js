// Copyright (c) 2026 gpufleet.llm maintainers
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

import hashes from 'crypto';
import policy from 'policy.js';
import token from 'token.js';

const API_KEY = /^bearer ([\x21-\x7e]{16,256})$/i;
const RECORD = /^([^ ]+) ([0-9]+) ([0-9]+) (.+)$/;
const USAGE = /"usage":\s*\{[^{}]*/g;
const RECENT_PIECES = 4;

// The last pieces of the response, by reference: memory of a request is given back at its end only.
const recent = [];

// The client that the request's API key and certificate belong to, or ''. Notes what kind of credential came.
function client(r) {
    const headers = r.rawHeadersIn.filter((header) => header[0].toLowerCase() === 'authorization');
    if (headers.length !== 1) {
        return '';
    }
    if (policy.token && token.isToken(headers[0][1])) {
        r.variables.credential = 'token';
        return '';
    }
    const match = API_KEY.exec(headers[0][1]);
    if (!match) {
        return '';
    }
    r.variables.credential = 'key';
    r.variables.api_key_sha256 = hashes.createHash('sha256').update(match[1]).digest('hex');
    const record = RECORD.exec(r.variables.api_key_record);
    if (!record || record[4] !== r.variables.ssl_client_s_dn) {
        return '';
    }
    const now = Date.now() / 1000;
    return Number(record[2]) <= now && (record[3] === '0' || now < Number(record[3])) ? record[1] : '';
}

// 'true' for a certificate that may read metrics; the subject is compared exactly.
function admin(r) {
    return policy.admins.indexOf(r.variables.ssl_client_s_dn) < 0 ? '' : 'true';
}

// 'true' if the answer is the fallback engine's.
function fallback(r) {
    const address = r.variables.fallback_address;
    return address && (r.variables.upstream_addr || '').endsWith(address) ? 'true' : '';
}

// Is the target the path of our location as it stands there, not one that nginx made into it? With a host before it,
// it's for https.
function isExact(r) {
    const target = r.variables.request.split(' ')[1] || '';
    const path = r.variables.request_uri.split('?')[0];
    return path === r.variables.route && (target[0] === '/' || /^https:/i.test(target));
}

// Anything but a clear yes forbids the fallback, in any of several headers.
function permission(r) {
    const values = r.rawHeadersIn.filter((header) => header[0].toLowerCase() === 'x-allow-fallback');
    return values.every((header) => /^(yes|true|1)?$/i.test(header[1])) ? 'allowed' : 'forbidden';
}

// Has the whole body by now; the engine is asked in a location of its own, where its errors aren't ours.
function pass(r) {
    if (!isExact(r)) {
        r.return(404);
        return;
    }
    r.variables.fallback_permission = permission(r);
    r.internalRedirect(r.variables.engine_location);
}

function noteUsage(r) {
    const found = Buffer.concat(recent).toString().match(USAGE);
    if (!found) {
        return;
    }
    const last = found[found.length - 1];
    const prompt = /"prompt_tokens":\s*(\d{1,9})\b/.exec(last);
    const completion = /"completion_tokens":\s*(\d{1,9})\b/.exec(last);
    r.variables.prompt_tokens = prompt ? prompt[1] : 'null';
    r.variables.completion_tokens = completion ? completion[1] : 'null';
}

// Passes a response on; notes when its first data came (a comment that keeps an event stream alive is none), the
// tokens that the engine counted, and whether the response came to its end.
function measure(r, data, flags) {
    if (data.length > 0) {
        if (r.variables.first_byte_seconds === 'null' && (data[0] !== 0x3a || data.indexOf('data:') >= 0)) {
            r.variables.first_byte_seconds = r.variables.request_time;
        }
        recent.push(data);
        if (recent.length > RECENT_PIECES) {
            recent.shift();
        }
    }
    if (flags.last) {
        r.variables.end_of_stream = 'true';
        noteUsage(r);
    }
    r.sendBuffer(data, flags);
}

export default { admin, client, fallback, measure, pass, verify: token.verify };
