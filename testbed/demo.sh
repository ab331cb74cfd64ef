#!/usr/bin/env bash
# The appliance on its own network stack: two network namespaces, a virtual cable, AF_XDP, a real player, then 200 clients, and a report.
# Needs root. `make demo` builds what it needs and calls it: testbed/demo.sh TACTUS TESTBED CLIP
# DEMO_CORES=0,1 gives it two engine cores, on these CPUs, and the cable as many queues at each end; DEMO_CLIENTS=100 another load.
set -eu

tactus=$1 testbed=$2 clip=$3
pictures=120 clients=${DEMO_CLIENTS:-200} cores=${DEMO_CORES:-auto}
queues=$(($(printf %s "$cores" | tr -cd , | wc -c) + 1))
server_ns=tactus-demo-s$$ client_ns=tactus-demo-c$$
out=$(mktemp -d)
server=

clean_up() {
	if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; fi
	# The cable goes with the namespaces.
	ip netns del "$server_ns" 2>/dev/null || true
	ip netns del "$client_ns" 2>/dev/null || true
	rm -rf "$out"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

in_server() { ip netns exec "$server_ns" "$@"; }
in_client() { ip netns exec "$client_ns" "$@"; }

ip netns add "$server_ns"
ip netns add "$client_ns"
ip link add veth0 netns "$server_ns" numrxqueues $queues numtxqueues $queues type veth \
	peer name veth0 netns "$client_ns" numrxqueues $queues numtxqueues $queues
in_server ip link set lo up
in_server ip link set veth0 up
in_client ip link set lo up
in_client ip link set veth0 up
in_client ip addr add 10.201.0.2/24 dev veth0
# The kernel leaves checksums unfinished on virtual interfaces, and only a kernel forgives that.
in_client ethtool -K veth0 tx off >/dev/null

mkdir "$out/media"
cp "$clip" "$out/media/sample.mp4"
echo "Making titles for $clients clients"
"$testbed" clip "$out/media/titles" --rate 1.4M --seconds 40 --count 8 >/dev/null

# Not through a function: its process id must be that of the server itself.
ip netns exec "$server_ns" "$tactus" serve --media "$out/media" --net af_xdp:veth0 --ip 10.201.0.1/24 --rtsp 10.201.0.1:8554 --http 10.201.0.1:8080 \
	--engine-cores "$cores" --memory 512MiB --index-cache off >"$out/server" 2>"$out/log" &
server=$!
tries=0
until grep -q '^ready: ' "$out/server"; do
	kill -0 $server 2>/dev/null || { echo 'The server did not start:'; cat "$out/log"; exit 1; }
	tries=$((tries + 1))
	[ $tries -lt 150 ] || { echo 'The server is not ready after 15 s:'; cat "$out/log"; exit 1; }
	sleep 0.1
done
sed -n 's/.*\(own stack on [^,;]*\(, [a-z-]* mode\)\?\).*/The server runs on its \1, with no address of the kernel'"'"'s/p' "$out/log" | sort -u
in_client ping -c 3 -i 0.2 -q 10.201.0.1 | tail -1

# Decoded pictures, as the file has them and as they arrive.
sums() { sed -n 's/^0,.*, *//p' "$1"; }
ffmpeg -nostdin -v error -i "$clip" -frames:v $pictures -map 0:v -f framemd5 - >"$out/raw"
sums "$out/raw" >"$out/file.md5"
for transport in udp tcp; do
	in_client ffmpeg -nostdin -v error -rtsp_transport $transport -i rtsp://10.201.0.1:8554/sample.mp4 -frames:v $pictures -map 0:v -f framemd5 - \
		>"$out/raw" 2>"$out/player" || { echo "The player failed over $transport:"; cat "$out/player"; exit 1; }
	sums "$out/raw" >"$out/$transport.md5"
	if cmp -s "$out/file.md5" "$out/$transport.md5"; then
		echo "ffmpeg over $transport: $(wc -l <"$out/$transport.md5") pictures, bit by bit those of the file"
	else
		echo "ffmpeg over $transport: the pictures differ from the file's ($(wc -l <"$out/$transport.md5") against $(wc -l <"$out/file.md5"))"
		exit 1
	fi
done

cpu() { awk '{print $14 + $15}' "/proc/$server/stat"; }
status() { in_client curl -sf http://10.201.0.1:8080/api/v1/status; }
status >"$out/before.json"
ticks=$(cpu)
echo "Loading it with $clients clients for 10 s"
in_client "$testbed" load --url 'rtsp://10.201.0.1:8554/titles/clip-000{n}.mp4' --titles 8 --clients "$clients" --ramp 200/s --duration 10 \
	--video-only --quiet --require 'loss=0' || { echo 'Packets were lost, or the load failed.'; tail -n 5 "$out/log"; exit 1; }
ticks=$(($(cpu) - ticks))
status >"$out/after.json"
echo 'Delivery report:'
jq -r --slurpfile before "$out/before.json" --argjson ticks $ticks --argjson hz "$(getconf CLK_TCK)" '
	(.totals.packets - $before[0].totals.packets) as $packets |
	"  \($packets) RTP packets under load, \($ticks / $hz) s of CPU: \($ticks / $hz * 1e8 / $packets | round / 100) us a packet, all of the server counted",
	(.cores[] | . as $core |
	"  engine core \(.core), \(.net): lateness since its start p50 \(.lateness.p50_us) us, p99 \(.lateness.p99_us) us, p99.9 \(.lateness.p999_us) us, max \(.lateness.max_us) us",
	(.own_stack | "  \(.tx_frames) frames sent past the kernel; of those that came, XDP gave \(.steered_to_us) to us and left \(.left_to_kernel) to the kernel",
	"  \(.tcp_established) TCP connections, \(.tcp_retransmits) segments sent again; \(.malformed) malformed, \(.bad_checksums) with a wrong checksum",
	if .handed_over + .taken_over > 0 then "  \(.handed_over) frames handed over to other engine cores, \(.taken_over) taken over from them, \(.handover_dropped) dropped on the way" else empty end))' "$out/after.json"
kill $server
wait $server && server= || { echo 'The server did not stop cleanly:'; tail -n 5 "$out/log"; exit 1; }
echo 'Stopped cleanly.'
