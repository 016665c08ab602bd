// Copyright (c) 2026 gpufleet.llm maintainers
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
// JSON Web Tokens (RFC 7519) signed by RS256 or ES256 (RFC 7518).

import policy from 'policy.js';

const TOKEN = /^bearer (([A-Za-z0-9_-]{16,2048})\.([A-Za-z0-9_-]{16,6144})\.([A-Za-z0-9_-]{16,1024}))$/i;
const ALGORITHMS = {
    RS256: { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' },
    ES256: { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' },
};

function isToken(authorization) {
    return TOKEN.test(authorization);
}

function isObject(value) {
    return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function decode(part) {
    const value = JSON.parse(Buffer.from(part, 'base64url').toString());
    if (!isObject(value)) {
        throw new Error('no object');
    }
    return value;
}

function isSeconds(value) {
    return typeof value === 'number' && isFinite(value);
}

// The client that the claims name for this certificate, or ''.
function clientOf(claims, subject) {
    const now = Date.now() / 1000;
    const wanted = policy.token;
    const audiences = Array.isArray(claims.aud) ? claims.aud : [claims.aud];
    const early = now + wanted.skewSeconds;
    if (claims.iss !== wanted.issuer || audiences.indexOf(wanted.audience) < 0 || typeof claims.sub !== 'string') {
        return '';
    }
    if (!isSeconds(claims.exp) || claims.exp + wanted.skewSeconds <= now) {
        return '';
    }
    if (claims.nbf !== undefined && !(isSeconds(claims.nbf) && claims.nbf <= early)) {
        return '';
    }
    if (claims.iat !== undefined && !(isSeconds(claims.iat) && claims.iat <= early)) {
        return '';
    }
    const found = wanted.clients.filter((entry) => entry.subject === claims.sub && entry.certificate === subject);
    return found.length === 1 ? found[0].client : '';
}

async function check(authorization, subject) {
    const parts = TOKEN.exec(authorization);
    const header = decode(parts[2]);
    if (header.crit !== undefined || (header.kid !== undefined && typeof header.kid !== 'string')) {
        return '';
    }
    const keys = policy.token.keys.filter(
        (key) => key.alg === header.alg && (header.kid === undefined || key.kid === header.kid));
    if (keys.length !== 1) {
        return '';
    }
    const algorithm = ALGORITHMS[keys[0].alg];
    const key = await crypto.subtle.importKey('spki', Buffer.from(keys[0].spki, 'base64'), algorithm, false, ['verify']);
    const signed = Buffer.from(parts[2] + '.' + parts[3]);
    const good = await crypto.subtle.verify(algorithm, key, Buffer.from(parts[4], 'base64url'), signed);
    return good === true ? clientOf(decode(parts[3]), subject) : '';
}

// Answers the subrequest of auth_request: 204 with the client's name, or 401.
async function verify(r) {
    let client = '';
    try {
        const authorization = r.headersIn.Authorization || '';
        if (isToken(authorization)) {
            client = await check(authorization, r.variables.ssl_client_s_dn);
        }
    } catch (error) {
        client = '';
    }
    if (client === '') {
        r.return(401);
        return;
    }
    r.headersOut['X-Token-Client'] = client;
    r.return(204);
}

export default { isToken, verify };
