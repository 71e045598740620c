# What each target does stands in CONTRIBUTING.md.
CARGO ?= cargo
BIN   := target/release/ai-proxy
HOST  := $(shell rustc -vV | sed -n 's/^host: //p')
MUSL  := $(subst -gnu,-musl,$(HOST))
# For another machine: make static TARGET=aarch64-unknown-linux-musl, with its compiler and linker as docs/deploy.md says.
TARGET ?= $(if $(wildcard $(shell rustc --print sysroot)/lib/rustlib/$(MUSL)/lib),$(MUSL),$(HOST))
CRATES := $(or $(CARGO_HOME),$(HOME)/.cargo)
# A panic names its file by crate and version.
SHORT  := $(foreach registry,$(wildcard $(CRATES)/registry/src/*),--remap-path-prefix=$(registry)/=)

.PHONY: all demo run test lint e2e e2e-heavy ops fuzz soak instructions bench bench-build bench-peers static dist deb clean

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

e2e: all
	AI_PROXY_BIN=$(CURDIR)/$(BIN) tests/e2e/run

# A gigabyte of other projects' servers, one of them compiled; not part of `.ci/run`.
e2e-heavy: all
	AI_PROXY_BIN=$(CURDIR)/$(BIN) tests/e2e/heavy/run

# SUITES=haproxy: that one. SUITES=-dist: all but that one.
ops: all
	AI_PROXY_BIN=$(CURDIR)/$(BIN) tests/ops/run $(SUITES)

fuzz: SECONDS ?= 60
fuzz:
	SECONDS_EACH=$(SECONDS) fuzz/run

soak: SECONDS ?= 60
soak: all
	AI_PROXY_BIN=$(CURDIR)/$(BIN) AI_PROXY_SOAK_SECONDS=$(SECONDS) \
		$(CARGO) test --locked --test it soak -- --ignored --nocapture

bench:
	$(CARGO) bench --locked --bench proxy

# What `make bench` and `make instructions` run, built ahead of them.
bench-build:
	$(CARGO) bench --locked --bench proxy --no-run

# Gateways of others, 700 MB of packages; not part of `.ci/run`.
bench-peers:
	benches/peers/install
	$(CARGO) bench --locked --bench proxy -- peers

instructions:
	$(CARGO) bench --locked --bench proxy -- instructions

# musl where its standard library is installed, else glibc linked statically. The same bytes wherever the sources lie.
# A relative relocation takes two bits instead of 24 bytes where the linker can pack them: a twentieth of the binary.
# A build script of the TLS library runs anew where SOURCE_DATE_EPOCH changes, which is for packing alone.
static:
	env --unset=SOURCE_DATE_EPOCH \
	RUSTFLAGS="-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs --remap-path-prefix=$(CURDIR)=/ai-proxy --remap-path-prefix=$(CRATES)=/cargo $(SHORT)" \
	CFLAGS="-ffile-prefix-map=$(CRATES)=/cargo" CARGO_PROFILE_RELEASE_STRIP=true $(CARGO) build --release --locked --target $(TARGET)
	install -D target/$(TARGET)/release/ai-proxy target/static/ai-proxy

dist: static
	dist/make $(TARGET) target/static/ai-proxy

deb: static
	rm -rf target/debian
	$(CARGO) deb --no-build --no-strip --target $(TARGET) --output target/debian/

clean:
	$(CARGO) clean
