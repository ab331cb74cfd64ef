# Tactus: what people type. `make` alone lists the goals.
# Nothing is downloaded but Debian packages (apt) and Rust crates (crates.io).

CARGO ?= cargo
# Seconds for which `make fuzz` runs each target.
FUZZ_SECONDS ?= 60
# What `make demo` and `make run` listen on.
RTSP_PORT ?= 8554
HTTP_PORT ?= 8080

# Options of `make figures`: --quick, --full, --only NAME, --resume.
FIGURES ?=
# What the sender of `make meter` does wrong on purpose, such as --lose 1/1000; and what must hold.
METER_FAULTS ?=
METER_REQUIRE ?= loss=0,reordered=0,duplicates=0,receiver_drops=0,generator_percent_per_gbps<40

TACTUS = target/release/tactus
CLIP = media/sample.mp4

# A linker for Rust; the rest is for libxdp, which xsk-rs (AF_XDP) builds from source with clang.
BUILD_PACKAGES = gcc libc6-dev m4 clang libclang-dev llvm libelf-dev zlib1g-dev pkg-config
# ffmpeg makes the sample clip and plays it.
RUN_PACKAGES = $(BUILD_PACKAGES) ffmpeg
# Also to read the status, and to make networks.
DEMO_PACKAGES = $(RUN_PACKAGES) curl jq iproute2 ethtool iputils-ping
# Slow disks. The daemon is in qemu-system-common in Debian 12 and in qemu-utils later; where it is there already, nothing is needed for it.
DISK_PACKAGES = e2fsprogs mount $(if $(shell command -v qemu-storage-daemon 2>/dev/null),,qemu-utils qemu-system-common)
# libFuzzer is C++.
FUZZ_PACKAGES = $(BUILD_PACKAGES) g++
# Network namespaces and what `testbed net` is measured with, real players, slow disks, and the server that `make bench` is compared with.
TEST_PACKAGES = $(DEMO_PACKAGES) iproute2 ethtool iperf3 netcat-openbsd iputils-ping gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good \
	gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-libav gstreamer1.0-rtsp \
	libgstrtspserver-1.0-0 gir1.2-gst-rtsp-server-1.0 python3-gi mpv $(DISK_PACKAGES)

# What our reader is held against.
BENCH_PACKAGES = $(BUILD_PACKAGES) fio

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup setup-build setup-run setup-demo setup-test setup-bench setup-fuzz build run demo demo-kernel test test-own-stack test-long lint bench bench-own-stack bench-parts meter figures fuzz clean

help: ## list the goals
	@echo 'Tactus. Goals:'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 24

# $(1): packages, $(2): what for. Asks dpkg first, so that a second run costs nothing.
define install
	@if ! command -v dpkg-query >/dev/null 2>&1 || ! command -v apt-get >/dev/null 2>&1; then \
		echo "No apt here: $(2) needs what Debian calls $(1)"; exit 0; \
	fi; \
	missing=; \
	for package in $(1); do \
		case $$(dpkg-query -W -f '$${Status}' $$package 2>/dev/null) in \
		*' installed') ;; \
		*) missing="$$missing $$package" ;; \
		esac; \
	done; \
	test -n "$$missing" || exit 0; \
	echo "Installing for $(2):$$missing"; \
	if [ "$$(id -u)" = 0 ]; then as_root='env DEBIAN_FRONTEND=noninteractive'; \
	elif command -v sudo >/dev/null 2>&1; then as_root='sudo env DEBIAN_FRONTEND=noninteractive'; \
	else \
		echo "This needs root, and there is no sudo. As root, run:"; \
		echo "  apt-get update && apt-get install -y --no-install-recommends$$missing"; \
		exit 1; \
	fi; \
	$$as_root apt-get update -qq && $$as_root apt-get install -y -qq --no-install-recommends $$missing >/dev/null || { \
		echo "apt could not install:$$missing. See the message above; then run make again."; exit 1; }
endef

setup: setup-test setup-bench setup-fuzz ## install what any goal needs (apt), only what is missing
	@$(CARGO) --version >/dev/null 2>&1 || { echo 'Rust is missing: install it with https://rustup.rs'; exit 1; }

setup-build:
	$(call install,$(BUILD_PACKAGES),building)

setup-run:
	$(call install,$(RUN_PACKAGES),making and playing a clip)

setup-demo:
	$(call install,$(DEMO_PACKAGES),making and playing a clip and reading the status)

setup-fuzz:
	$(call install,$(FUZZ_PACKAGES),building the fuzzer)

setup-test:
	$(call install,$(TEST_PACKAGES),end-to-end tests with real players)

setup-bench:
	$(call install,$(BENCH_PACKAGES),measuring the disk reader beside fio)

build: setup-build ## build tactus (release)
	@TACTUS_BUILD=$$(git describe --always --dirty --tags 2>/dev/null); \
	if [ -n "$$TACTUS_BUILD" ]; then export TACTUS_BUILD; else unset TACTUS_BUILD; fi; \
	$(CARGO) build --release -p controlplane

# Sixty seconds with a clock in the picture and a tone, so that a player's delay and any stutter can be seen and heard.
$(CLIP): | setup-run
	@mkdir -p media
	@font=$$(fc-match -f '%{file}' monospace 2>/dev/null); \
	if [ -z "$$font" ] || [ ! -f "$$font" ]; then \
		font=$$(find /usr/share/fonts -name '*.ttf' 2>/dev/null | sort | head -n 1); \
	fi; \
	clock=null; \
	if [ -n "$$font" ]; then \
		clock="drawtext=fontfile=$$font:text='%{pts\\:hms}':fontsize=72:fontcolor=white:box=1:boxborderw=12:boxcolor=black@0.6:x=(w-tw)/2:y=h-140"; \
	fi; \
	echo 'Making $@: 60 s, 1280x720, a clock and a tone'; \
	ffmpeg -nostdin -v error -y -f lavfi -i testsrc2=size=1280x720:rate=25:duration=60 \
		-f lavfi -i "sine=frequency=440:beep_factor=2:sample_rate=48000:duration=60" -vf "$$clock,format=yuv420p" \
		-c:v libx264 -preset veryfast -profile:v high -b:v 1400k -maxrate 2000k -bufsize 2000k -g 50 \
		-c:a aac -b:a 96k -ac 2 -movflags +faststart -f mp4 $@.part && mv $@.part $@

run: setup-run build $(CLIP) ## build, make a sample clip, serve it and say how to play it
	@echo 'Play it with one of:'
	@echo '  ffplay -rtsp_transport udp rtsp://localhost:$(RTSP_PORT)/sample.mp4'
	@echo '  vlc rtsp://localhost:$(RTSP_PORT)/sample.mp4'
	@echo '  mpv rtsp://localhost:$(RTSP_PORT)/sample.mp4'
	@echo 'Ctrl-C stops.'
	@exec $(TACTUS) serve --media media --rtsp 0.0.0.0:$(RTSP_PORT) --http 127.0.0.1:$(HTTP_PORT)

# Root: our own stack over AF_XDP between two network namespaces. Otherwise: kernel sockets on loopback.
demo: setup-demo build $(CLIP) ## show it: our own stack over AF_XDP to a real player and 200 clients, with a report (root; else demo-kernel)
	@if [ "$$(id -u)" = 0 ]; then \
		$(CARGO) build --release -p testbed --bins && testbed/demo.sh $(TACTUS) target/release/testbed $(CLIP); \
	else \
		echo 'Without root there is no AF_XDP: showing kernel sockets on loopback.'; \
		$(MAKE) --no-print-directory demo-kernel; \
	fi

# The ports are the system's choice, so that a demonstration disturbs nothing; the ready line tells them.
demo-kernel: setup-demo build $(CLIP) ## the same without root: kernel sockets on loopback, one player
	@set -e; out=$$(mktemp -d); server=; player=; \
	clean_up() { \
		test -z "$$player" || kill $$player 2>/dev/null || true; \
		test -z "$$server" || { kill $$server 2>/dev/null || true; wait $$server 2>/dev/null || true; }; \
		rm -rf "$$out"; \
	}; \
	trap clean_up EXIT; trap 'exit 130' INT; trap 'exit 143' TERM; \
	$(TACTUS) serve --media media --rtsp 127.0.0.1:0 --http 127.0.0.1:0 --rtp-port 0 >"$$out/server" 2>"$$out/log" & server=$$!; \
	tries=0; \
	until grep -q '^ready: ' "$$out/server"; do \
		kill -0 $$server 2>/dev/null || { echo 'The server did not start:'; cat "$$out/log"; exit 1; }; \
		tries=$$((tries + 1)); \
		[ $$tries -lt 150 ] || { echo 'The server is not ready after 15 s:'; cat "$$out/log"; exit 1; }; \
		sleep 0.1; \
	done; \
	rtsp=$$(sed -n 's/^ready: rtsp=\([^ ]*\).*/\1/p' "$$out/server"); \
	http=$$(sed -n 's/^ready: .* http=\([^ ]*\).*/\1/p' "$$out/server"); \
	echo "Playing rtsp://$$rtsp/sample.mp4 over UDP with ffmpeg for 10 s"; \
	ffmpeg -nostdin -v error -rtsp_transport udp -i "rtsp://$$rtsp/sample.mp4" -t 10 -f framemd5 "$$out/frames" 2>"$$out/player" & \
	player=$$!; \
	sleep 8; \
	curl -sf "http://$$http/api/v1/sessions" >"$$out/sessions.json"; \
	wait $$player || { echo 'The player failed:'; cat "$$out/player"; exit 1; }; player=; \
	sleep 1; \
	curl -sf "http://$$http/api/v1/status" >"$$out/status.json"; \
	echo "Received: $$(grep -c '^0,' "$$out/frames") pictures, $$(grep -c '^1,' "$$out/frames") audio frames"; \
	echo 'Session while it played:'; \
	jq -r '.sessions[] | "  \(.path) to \(.client) over \(.transport): \([.tracks[].packets] | add) packets, lateness of the server p50 \(.lateness.p50_us) us, p99 \(.lateness.p99_us) us, max \(.lateness.max_us) us"' "$$out/sessions.json"; \
	echo 'Delivery report:'; \
	jq -r '"  \(.totals.packets) packets, \(.totals.bytes) bytes, \(.net)", (.cores[] | "  engine core \(.core): \(.disk); buffers on \(.memory); lateness p50 \(.lateness.p50_us) us, p99 \(.lateness.p99_us) us, p99.9 \(.lateness.p999_us) us, max \(.lateness.max_us) us; carried over \(.carried_over)")' "$$out/status.json"; \
	kill $$server; wait $$server && server= || { echo 'The server did not stop cleanly:'; cat "$$out/log"; exit 1; }; \
	echo 'Stopped cleanly.'

test: setup-test lint ## all that continuous integration runs: lint, unit, property, simulation and end-to-end tests
	$(CARGO) build --workspace --bins
	$(CARGO) test --workspace
	@$(MAKE) --no-print-directory test-own-stack

# The end-to-end tests of the main job once more, with every server on our own stack in a namespace of its own.
test-own-stack: setup-test ## the end-to-end tests over AF_XDP and TAP (needs root)
	@if [ "$$(id -u)" != 0 ]; then \
		echo 'SKIPPED (needs root): the end-to-end tests over AF_XDP and TAP'; \
		test -z "$$CI" || { echo 'A skip in CI is a failure.'; exit 1; }; \
		exit 0; \
	fi; \
	logs=$$(mktemp -d); trap 'rm -rf "$$logs"' EXIT; trap 'kill 0' INT TERM; \
	echo 'End-to-end tests, every server on its own stack: over AF_XDP and, beside it, over TAP'; \
	for net in af_xdp tap; do \
		{ TACTUS_E2E_NET=$$net unshare -n sh -c 'ip link set lo up && exec "$$@"' sh \
			$(CARGO) test -q -p testbed --test e2e_players --test e2e_sessions --test e2e_clips --test e2e_hostile --test e2e_live --test e2e_record -- --test-threads=1 \
			>"$$logs/$$net" 2>&1; echo $$? >"$$logs/$$net.code"; } & \
	done; \
	wait; failed=0; \
	for net in af_xdp tap; do \
		echo "Over $$net:"; cat "$$logs/$$net"; \
		[ "$$(cat "$$logs/$$net.code")" = 0 ] || failed=1; \
	done; \
	exit $$failed

test-long: setup-test ## the tests that take long: simulated hours, full sweeps
	$(CARGO) test --workspace --release -- --include-ignored

lint: setup-build ## formatting and clippy, warnings denied
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

bench: setup-test build ## measure punctuality and cost on loopback, beside GStreamer's server
	$(CARGO) build --release -p testbed
	target/release/testbed bench
	@$(MAKE) --no-print-directory bench-own-stack
	@$(MAKE) --no-print-directory bench-parts

# Our own work per packet over a port that sends nowhere, then a real port beside sendmmsg. Each example prints its table.
bench-own-stack: setup-build
	@echo 'Own stack: RTP over a port that sends nowhere'
	@$(CARGO) run -q --release -p stack --example udp_bench
	@echo 'Own stack: TCP, two of them joined by memory'
	@$(CARGO) run -q --release -p stack --example tcp_bench
	@if [ "$$(id -u)" != 0 ]; then echo 'SKIPPED (needs root): our stack over AF_XDP beside sendmmsg'; test -z "$$CI"; else \
		echo 'Own stack: one core over a pair of virtual interfaces'; \
		$(CARGO) run -q --release -p dataplane --example port_bench; \
	fi

# The engine's parts, one after the other. fio gets huge pages only where some are reserved, so root reserves some for as long as it takes.
bench-parts: setup-bench ## measure the engine's parts: ns per packet, wheel operations, the disk reader beside fio
	@$(CARGO) run -q --release -p dataplane --example gdsl_bench
	@echo 'Wheel'
	@$(CARGO) run -q --release -p pacing --example wheel_bench
	@echo 'Disk reader beside fio'
	@$(CARGO) build -q --release -p dataplane --example disk_bench
	@mkdir -p out; pages=/proc/sys/vm/nr_hugepages; before=$$(cat $$pages 2>/dev/null || echo 0); changed=; \
	give_back() { test -z "$$changed" || echo "$$before" >$$pages; }; \
	trap give_back EXIT; trap 'exit 130' INT; trap 'exit 143' TERM; \
	if [ -w $$pages ] && echo $$((before + 32)) >$$pages 2>/dev/null; then changed=yes; fi; \
	target/release/examples/disk_bench out/disk_bench.file

# A thousand streams of 1.4 Mbps from a sender that keeps its beat and loses what it is told to: what of this does the load generator add?
meter: ## show what the load generator itself adds: 1,000 streams of known pacing
	$(CARGO) build --release -p testbed
	@set -e; out=$$(mktemp -d); sender=; \
	clean_up() { test -z "$$sender" || kill $$sender 2>/dev/null || true; rm -rf "$$out"; }; \
	trap clean_up EXIT; trap 'exit 130' INT; trap 'exit 143' TERM; \
	target/release/testbed send $(METER_FAULTS) >"$$out/sender" & sender=$$!; \
	tries=0; until grep -q '^ready: ' "$$out/sender"; do \
		kill -0 $$sender 2>/dev/null && [ $$tries -lt 100 ] || { echo 'The sender did not start.'; exit 1; }; \
		tries=$$((tries + 1)); sleep 0.1; \
	done; \
	url=$$(sed -n 's/^ready: rtsp=\([^ ]*\).*/\1/p' "$$out/sender"); \
	echo 'What the load generator found:'; held=0; \
	target/release/testbed load --url rtsp://$$url/x --clients 1000 --ramp 500/s --duration 15 --cpu 0 --quiet \
		--require '$(METER_REQUIRE)' || held=$$?; \
	kill $$sender; wait $$sender || true; sender=; \
	echo 'What was sent:'; grep -v '^ready: ' "$$out/sender"; exit $$held

figures: setup-test build ## measure the figures of the report: out/figures/index.html (half an hour; FIGURES=--quick: in minutes, --full: in hours)
	$(CARGO) build --release -p testbed
	target/release/testbed figures $(FIGURES)

# cargo-fuzz wants a nightly compiler for the sanitizer options; RUSTC_BOOTSTRAP lets the pinned one take them.
fuzz: setup-fuzz ## run every fuzz target for FUZZ_SECONDS (60), from the committed corpus
	@$(CARGO) fuzz --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-fuzz
	@set -e; for target in $$(sed -n 's/^name = "\(.*\)"$$/\1/p' testbed/fuzz/Cargo.toml | grep -v '^tactus-fuzz$$'); do \
		echo "== $$target, $(FUZZ_SECONDS) s"; \
		mkdir -p testbed/fuzz/corpus/$$target; \
		(cd testbed && RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run $$target fuzz/corpus/$$target corpus/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=2048); \
	done

clean: ## remove what was built; the sample clip stays
	$(CARGO) clean
	rm -rf testbed/fuzz/target testbed/fuzz/artifacts out
