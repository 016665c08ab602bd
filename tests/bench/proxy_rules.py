# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proxy's rules, each with the edit that takes it out of a rendered copy, so that its cost can be measured."""

from __future__ import annotations

from proxyrig.rendering import Rule

AUTHENTICATION = Rule(
    "key and certificate (njs, auth_request)",
    (
        ("proxy/guard.conf", r"auth_request /_authenticate;", ""),
        ("proxy/nginx.conf", r"js_set \$api_client proxy\.client;", 'map "" $api_client { default demo; }'),
    ),
)
LIMITS = Rule(
    "rate and concurrency limits", (("proxy/guard.conf", r"limit_(req|conn) [^;]*;|include share.conf;", ""),)
)
MEASURE = Rule("first token, end, usage (njs body filter)", (("proxy/engine.conf", r"js_body_filter [^;]*;", ""),))
HOP = Rule(
    "body whole before the engine is chosen (js_content)",
    (
        (
            "servers/mock.conf",
            r"set \$engine_location (@engine_\d+);([^}]*)\}([^}]*)js_content proxy\.pass;",
            r"\2}\3root /nonexistent; try_files /none \1;",
        ),
    ),
)
HEADERS_IN = Rule("request headers allow-listed", (("proxy/engine.conf", r"proxy_pass_request_headers off;", ""),))
HEADERS_OUT = Rule("response headers (HSTS, request id)", (("proxy/headers.conf", r"add_header [^;]*;", ""),))
LOG = Rule("JSON access log", (("proxy/nginx.conf", r"access_log [^;]* requests;", "access_log off;"),))
POOL = Rule(
    "breaker and fallback (maps)",
    (
        (
            "servers/mock.conf",
            r"proxy_pass http://\$pool_m\d",
            "set $fixed_pool llm_mock; proxy_pass http://$fixed_pool",
        ),
    ),
)
REQUEST_RULES = (AUTHENTICATION, LIMITS, MEASURE, HOP, HEADERS_IN, HEADERS_OUT, LOG, POOL)

RESUMPTION = Rule(
    "no resumption of TLS sessions",
    (
        ("proxy/tls.conf", r"ssl_session_cache off;", "ssl_session_cache shared:tls:10m;"),
        ("proxy/tls.conf", r"ssl_session_tickets off;", "ssl_session_tickets on;"),
    ),
)
REVOCATION = Rule("revocation list", (("proxy/tls.conf", r"ssl_crl [^;]*;", ""),))
CLIENT_CERTIFICATE = Rule(
    "client certificate", (("servers/mock.conf", r"ssl_verify_client (on|optional);", "ssl_verify_client off;"),)
)
