#!/usr/bin/env bash
# Measures the CPU time per request of wxproxy and of comparable proxies under
# the same load: wrk over keep-alive connections, a small POST, a small JSON
# response, everything on loopback, each proxy on one CPU.
#
#   bench/peers.sh [seconds]     ROUNDS=3 CONNS=64
#   TLS=1 bench/peers.sh         TLS to WeChat, as in production
#   BEFORE=DIR bench/peers.sh    measures the checkout in DIR in the same run, too
#   PLAIN=1 bench/peers.sh       and wxproxy with WXPROXY_PLAIN_SOCKETS=1
#   ONLY="A B" bench/peers.sh   measures only these and bare-fasthttp, for example wxproxy-plain
#
# Needs Go, nginx with the Lua module, haproxy, wrk and openssl. On Debian it
# installs what is missing. RESULTS=FILE writes the last table to a file as well.
set -u
cd "$(dirname "$0")/.."
# Everything that is written goes below t. nginx's configuration names it, too.
here=$PWD/bench secs=${1:-8} conns=${CONNS:-64} rounds=${ROUNDS:-3} tls=${TLS:-} before=${BEFORE:-} plain=${PLAIN:-} t=/tmp/bench
packages=()
for tool in nginx haproxy wrk openssl; do command -v $tool >/dev/null || packages+=(${tool/nginx/nginx-core}); done
[ -e /usr/share/nginx/modules-available/mod-http-lua.conf ] || packages+=(libnginx-mod-http-lua)
[ ${#packages[@]} = 0 ] || { apt-get install -y --no-install-recommends "${packages[@]}" || { apt-get update && apt-get install -y --no-install-recommends "${packages[@]}"; }; } || { echo "peers.sh: cannot install ${packages[*]}; install them yourself"; exit 1; }
rm -rf $t; mkdir -p $t/conf
openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=api.weixin.qq.com -addext subjectAltName=DNS:api.weixin.qq.com,IP:127.0.0.1 -keyout $t/key.pem -out $t/cert.pem 2>/dev/null
go build -o $t/wxproxy ./cmd/wxproxy && go build -o $t/prime ./bench/prime && go build -o $t/bare ./bench/bare || exit 1
[ -z "$before" ] || go build -C "$before" -o $t/wxproxy-before ./cmd/wxproxy || exit 1
cp "$here"/conf/* $t/conf/
up=127.0.0.1:9100 scheme=http ca=
if [ -n "$tls" ]; then
  up=127.0.0.1:9101 scheme=https ca="upstream_ca_file = \"$t/cert.pem\""
  sed -i "s#127.0.0.1:9100;#127.0.0.1:9101;#; s#proxy_pass http://#proxy_ssl_session_reuse on; proxy_ssl_server_name on; proxy_ssl_name api.weixin.qq.com; proxy_pass https://#" $t/conf/nginx-static.conf $t/conf/nginx-lua.conf
  sed -i "s#server s 127.0.0.1:9100#server s 127.0.0.1:9101 ssl verify none sni str(api.weixin.qq.com)#" $t/conf/haproxy.cfg
fi
component=wxcccccccccccccccc account=wx1234567890abcdef caller=bench-caller-key token=benchtoken key=abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG
cat > $t/config.toml <<TOML
[component]
appid = "$component"
appsecret = "bench"
message_token = "$token"
message_key = "$key"
[proxy]
listen = "127.0.0.1:9207"
upstream = "$scheme://$up"
$ca
[callback]
listen = "127.0.0.1:9208"
[admin]
listen = "127.0.0.1:9209"
[store]
url = "file:$t/bench.db"
[[caller]]
name = "bench"
key_sha256 = "$(printf %s "$caller" | sha256sum | cut -d' ' -f1)"
TOML
sed "s/:920\([789]\)\"/:921\1\"/; s#bench.db#before.db#" $t/config.toml > $t/before.toml
sed "s/:920\([789]\)\"/:922\1\"/; s#bench.db#plain.db#" $t/config.toml > $t/plain.toml
# The processes end by their pid, so that no other nginx or haproxy is hit.
pids=()
start() { "$@" >$t/last.log 2>&1 & pids+=($!); last=$!; }
trap 'kill "${pids[@]}" 2>/dev/null; wait 2>/dev/null' EXIT
start nginx -c $t/conf/nginx-upstream.conf
declare -A pid port path; order=()
call=/cgi-bin/message/custom/send
add() { name=$1; port[$name]=$2; path[$name]=$3; shift 3; start "$@"; pid[$name]=$last; order+=("$name"); }
add nginx-static 9201 $call nginx -c $t/conf/nginx-static.conf
add nginx-lua 9202 /$account$call nginx -c $t/conf/nginx-lua.conf
add haproxy 9203 $call haproxy -db -f $t/conf/haproxy.cfg
add bare-fasthttp 9205 $call env GOMAXPROCS=1 $t/bare 127.0.0.1:9205 $up $tls
add wxproxy 9207 /$account$call env GOMAXPROCS=1 $t/wxproxy serve --config $t/config.toml
[ -z "$before" ] || add wxproxy-before 9217 /$account$call env GOMAXPROCS=1 $t/wxproxy-before serve --config $t/before.toml
[ -z "$plain" ] || add wxproxy-plain 9227 /$account$call env GOMAXPROCS=1 WXPROXY_PLAIN_SOCKETS=1 $t/wxproxy serve --config $t/plain.toml
[ -z "${ONLY:-}" ] || order=(bare-fasthttp $ONLY)
cat > $t/post.lua <<'LUA'
wrk.method = "POST"
wrk.body = '{"touser":"OPENID","msgtype":"text","text":{"content":"hello world"}}'
wrk.headers["Content-Type"] = "application/json"
wrk.headers["X-Wxproxy-Key"] = "bench-caller-key"
LUA
sleep 2
prime() { $t/prime -callback http://127.0.0.1:$1 -component $component -token $token -key $key -account $account >/dev/null || exit 1; }
prime 9208
[ -z "$before" ] || prime 9218
[ -z "$plain" ] || prime 9228
sleep 1
# ticks PID: CPU time of a process and its children, in steps of 10 ms.
ticks() { local n=0 q; for q in $1 $(pgrep -P "$1"); do set -- $(sed 's/.*) //' /proc/$q/stat 2>/dev/null); n=$((n + ${12:-0} + ${13:-0})); done; echo $n; }
for r in $(seq "$rounds"); do for n in "${order[@]}"; do
  t0=$(ticks ${pid[$n]})
  out=$(wrk -t1 -c"$conns" -d"${secs}"s --latency -s $t/post.lua http://127.0.0.1:${port[$n]}${path[$n]} 2>&1)
  t1=$(ticks ${pid[$n]})
  rss=$(awk '/VmHWM/{print $2}' /proc/${pid[$n]}/status)
  awk -v n=$n -v r=$r -v t=$((t1 - t0)) -v s="$secs" -v m="$rss" '
    /requests in/{q=$1} / 50%/{a=$2} / 99%/{b=$2} /Non-2xx/{bad=$NF}
    END{printf "%-14s round %d  %8.0f req/s  %6.1f us/req  p50 %s  p99 %s  peak %.0f MiB  failed %d\n", n, r, (q-bad)/s, t*10000/(q?q:1), a, b, m/1024, bad}' <<<"$out"
done; done | tee $t/out.txt
# median NAME FIELD: the median over all rounds, in ms for times; wrk prints us,
# ms or s.
median() {
  awk -v n="$1" -v f="$2" '$1==n{v=$f; if (v ~ /us$/) v/=1000; else if (v !~ /ms$/ && v ~ /s$/) v*=1000; print v+0}' $t/out.txt | sort -n | awk '{a[NR]=$1} END{print a[int((NR+1)/2)]}'
}
bare=$(median bare-fasthttp 6)
echo "medians of $rounds rounds: CPU time per request, its ratio to bare fasthttp, 99th percentile, successful requests per second:"
for n in "${order[@]}"; do
  awk -v n="$n" -v u="$(median "$n" 6)" -v b="$bare" -v p="$(median "$n" 11)" -v q="$(median "$n" 4)" 'BEGIN{printf "%-14s %6.1f us  %.2f  %6.2f ms  %6d\n", n, u, u/b, p, q}'
done | sort -k2n | tee ${RESULTS:+"$RESULTS"}
