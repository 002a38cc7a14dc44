#!/bin/sh
# The HAProxy that comes with Ray ($OFFSFT_HAPROXY), as our services need it; services/ingress.py has Ray run this.
# Its statistics and metrics ask for no token: they are for this machine alone, where Ray's config opens them to all.
ports="${RAY_SERVE_HAPROXY_STATS_PORT:-8404}|${RAY_SERVE_HAPROXY_METRICS_PORT:-9101}"
for argument in "$@"; do
    case "$argument" in
    *.cfg) [ ! -w "$argument" ] || sed -i -E "s/^( *bind )\*?:($ports)\$/\1127.0.0.1:\2/" "$argument" ;;
    esac
done
# -dS: while it splices, HAProxy 2.8 does not see that a client went away before its answer began.
exec "$OFFSFT_HAPROXY" -dS "$@"
