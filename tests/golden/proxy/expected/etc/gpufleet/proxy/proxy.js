// Copyright (c) 2026 gpufleet.llm maintainers
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

import hashes from 'crypto';
import policy from 'policy.js';
import token from 'token.js';

const API_KEY = /^bearer ([\x21-\x7e]{16,256})$/i;
const RECORD = /^([^ ]+) ([0-9]+) ([0-9]+) (.+)$/;
const YES = /^(yes|true|1)?$/i;
const USAGE = /"usage":\s*\{[^{}]*/g;

// The last pieces of the response, by reference: memory of a request is given back at its end only. They and the flag are
// this request's own; a stream comes here for every token, and a variable of nginx costs more than one of ours.
let last, second, third, fourth;
let begun = false;

// The client that the request's API key and certificate belong to, or ''. Notes what kind of credential came.
function client(r) {
    // nginx has refused a request with two.
    const authorization = r.headersIn.Authorization;
    if (!authorization) {
        return '';
    }
    if (policy.token && token.isToken(authorization)) {
        r.variables.credential = 'token';
        return '';
    }
    const match = API_KEY.exec(authorization);
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

// Is the answer the fallback engine's? Asked only where there is one.
function fallback(r) {
    return (r.variables.upstream_addr || '').endsWith(r.variables.fallback_address) ? 'true' : 'false';
}

// Is the target the path of our location as it stands there, not one that nginx made into it? With a host before it,
// it's for https.
function isExact(r) {
    const target = r.variables.request.split(' ')[1] || '';
    const path = r.variables.request_uri.split('?')[0];
    return path === r.variables.route && (target[0] === '/' || /^https:/i.test(target));
}

// Anything but a clear yes forbids the fallback; of several headers this gets all, with commas.
function permission(r) {
    const asked = r.headersIn['X-Allow-Fallback'];
    return asked === undefined || YES.test(asked) ? 'allowed' : 'forbidden';
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
    const pieces = [fourth, third, second, last].filter((piece) => piece !== undefined);
    const found = Buffer.concat(pieces).toString().match(USAGE);
    if (!found) {
        return;
    }
    const usage = found[found.length - 1];
    const prompt = /"prompt_tokens":\s*(\d{1,9})\b/.exec(usage);
    const completion = /"completion_tokens":\s*(\d{1,9})\b/.exec(usage);
    r.variables.prompt_tokens = prompt ? prompt[1] : 'null';
    r.variables.completion_tokens = completion ? completion[1] : 'null';
}

// Passes a response on; notes when its first data came (a comment that keeps an event stream alive is none), the
// tokens that the engine counted, and whether the response came to its end.
function measure(r, data, flags) {
    if (data.length > 0) {
        if (!begun && (data[0] !== 0x3a || data.indexOf('data:') >= 0)) {
            begun = true;
            r.variables.first_byte_seconds = r.variables.request_time;
        }
        fourth = third;
        third = second;
        second = last;
        last = data;
    }
    if (flags.last) {
        r.variables.end_of_stream = 'true';
        noteUsage(r);
    }
    r.sendBuffer(data, flags);
}

export default { admin, client, fallback, measure, pass, verify: token.verify };
