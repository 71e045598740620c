# What each target does stands in CONTRIBUTING.md.
CARGO ?= cargo
STRIP ?= strip
RELEASE := target/release/ai-proxy
# What `e2e`, `ops` and `soak` test: built first, unless another is named (BIN=target/static/ai-proxy).
BIN   ?= $(RELEASE)
BUILT := $(if $(filter $(RELEASE),$(BIN)),all)
HOST  := $(shell rustc -vV | sed -n 's/^host: //p')
MUSL  := $(subst -gnu,-musl,$(HOST))
NATIVE := $(if $(wildcard $(shell rustc --print sysroot)/lib/rustlib/$(MUSL)/lib),$(MUSL),$(HOST))
# For another machine: `dist/cross arm64 make static`, or any TARGET with its compiler and linker as docs/deploy.md says.
TARGET ?= $(NATIVE)
# PROFILE=dev: built in half the time, to try a machine.
PROFILE ?= release
STATIC_BIN := target/static/$(if $(filter $(NATIVE),$(TARGET)),,$(TARGET)/)ai-proxy
CRATES := $(or $(CARGO_HOME),$(HOME)/.cargo)
# A panic names its file by crate and version.
SHORT  := $(foreach registry,$(wildcard $(CRATES)/registry/src/*),--remap-path-prefix=$(registry)/=)

.PHONY: all demo run test lint e2e e2e-heavy ops fuzz soak instructions bench bench-build bench-peers static arm dist deb rpm \
	release cargo-deb cargo-generate-rpm clean

all:
	$(CARGO) build --release --locked

demo:
	$(CARGO) run --release --locked -- demo

run:
	$(CARGO) run --release --locked

test:
	$(CARGO) test --locked --lib --bins --tests

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings

e2e: $(BUILT)
	AI_PROXY_BIN=$(abspath $(BIN)) tests/e2e/run

# A gigabyte of other projects' servers, one of them compiled; not part of `.ci/run`.
e2e-heavy: $(BUILT)
	AI_PROXY_BIN=$(abspath $(BIN)) tests/e2e/heavy/run

# SUITES=haproxy: that one. SUITES=-dist: all but that one.
ops: $(BUILT)
	AI_PROXY_BIN=$(abspath $(BIN)) tests/ops/run $(SUITES)

fuzz: SECONDS ?= 60
fuzz:
	SECONDS_EACH=$(SECONDS) fuzz/run

soak: SECONDS ?= 60
soak: $(BUILT)
	AI_PROXY_BIN=$(abspath $(BIN)) AI_PROXY_SOAK_SECONDS=$(SECONDS) \
		$(CARGO) test --locked --test it soak -- --ignored --nocapture

# STATIC=1 measures the static binary; one build is then enough for packages and measurements.
BENCH = $(if $(STATIC),$(STATICALLY)) $(CARGO) bench --locked $(if $(STATIC),--target $(TARGET)) --bench proxy

bench:
	$(BENCH)

# What `make bench` and `make instructions` run, built ahead of them.
bench-build:
	$(BENCH) --no-run

# Gateways of others, 700 MB of packages; not part of `.ci/run`.
bench-peers:
	benches/peers/install
	$(BENCH) -- peers

instructions:
	$(BENCH) -- instructions

# musl where its standard library is installed, else glibc linked statically. The same bytes wherever the sources lie.
# A relative relocation takes two bits instead of 24 bytes where the linker can pack them: a twentieth of the binary.
# A build script of the TLS library runs anew where SOURCE_DATE_EPOCH changes, which is for packing alone.
# Names are left out of the copy alone: `make instructions STATIC=1` runs the very build. `dist/cross` sets CROSS_FLAGS.
STATICALLY = env --unset=SOURCE_DATE_EPOCH \
	RUSTFLAGS="-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs --remap-path-prefix=$(CURDIR)=/ai-proxy --remap-path-prefix=$(CRATES)=/cargo $(SHORT) $(CROSS_FLAGS)" \
	CFLAGS="-ffile-prefix-map=$(CRATES)=/cargo"

static:
	$(STATICALLY) $(CARGO) build --profile $(PROFILE) --locked --target $(TARGET)
	mkdir -p $(dir $(STATIC_BIN))
	$(STRIP) -o $(STATIC_BIN).new $(or $(CARGO_TARGET_DIR),target)/$(TARGET)/$(PROFILE:dev=debug)/ai-proxy
	mv $(STATIC_BIN).new $(STATIC_BIN)

# The static binaries for ARM, with Debian's tools: target/static/TARGET/ai-proxy.
arm:
	dist/cross arm64 $(MAKE) static
	dist/cross armhf $(MAKE) static

dist: static
	dist/make $(TARGET) $(STATIC_BIN)

# Times in packages are the commit's, so that they are the same bytes wherever they are made.
EPOCH = $(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct 2>/dev/null || echo 315532800))
# What of [package.metadata] in Cargo.toml packs: target/package/ai-proxy.
PACK = install -D $(STATIC_BIN) target/package/ai-proxy; SOURCE_DATE_EPOCH=$(EPOCH) $(CARGO)

deb: cargo-deb static
	$(PACK) deb --no-build --no-strip --target $(TARGET) --output target/debian/

# Fedora calls the ARM of armhf armv7hl.
rpm: cargo-generate-rpm static
	mkdir -p target/rpm
	$(PACK) generate-rpm --target $(TARGET) $(if $(filter %eabihf,$(TARGET)),--arch armv7hl) --output target/rpm/

# First of all, so that nobody waits for a build to learn that a tool is missing.
cargo-deb cargo-generate-rpm:
	@command -v $@ >/dev/null || test -x $(CRATES)/bin/$@ || { \
		echo "$@ is missing: make install-$@" >&2; exit 1; }

install-cargo-%:
	$(CARGO) install --quiet --locked cargo-$* --version $(VERSION_cargo-$*)

VERSION_cargo-deb := 3.8.0
VERSION_cargo-generate-rpm := 0.21.1

# Tarball, .deb, .rpm and bill of materials for each machine, and SHA256SUMS: target/dist. MACHINES="amd64 arm64": those.
release: cargo-deb cargo-generate-rpm
	dist/release $(MACHINES)

clean:
	$(CARGO) clean
