# What each target does stands in README.md.
CARGO ?= cargo
BIN   := target/release/ai-proxy
HOST  := $(shell rustc -vV | sed -n 's/^host: //p')
MUSL  := $(subst -gnu,-musl,$(HOST))

.PHONY: all demo run test lint e2e e2e-heavy ops fuzz soak instructions bench static clean

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

# Half a gigabyte of another project's server; not part of `.ci/run`.
e2e-heavy: all
	AI_PROXY_BIN=$(CURDIR)/$(BIN) tests/e2e/heavy/run

ops: all
	AI_PROXY_BIN=$(CURDIR)/$(BIN) tests/ops/run

fuzz: SECONDS ?= 60
fuzz:
	SECONDS_EACH=$(SECONDS) fuzz/run

soak: SECONDS ?= 60
soak: all
	AI_PROXY_BIN=$(CURDIR)/$(BIN) AI_PROXY_SOAK_SECONDS=$(SECONDS) \
		$(CARGO) test --locked --test it soak -- --ignored --nocapture

bench:
	$(CARGO) bench --locked --bench proxy

instructions:
	$(CARGO) bench --locked --bench proxy -- instructions

# musl where its standard library is installed, else glibc linked statically.
static:
	@if [ -d "$$(rustc --print sysroot)/lib/rustlib/$(MUSL)/lib" ]; then \
		set -x; $(CARGO) build --release --locked --target $(MUSL) && install -D target/$(MUSL)/release/ai-proxy target/static/ai-proxy; \
	else \
		set -x; RUSTFLAGS="-C target-feature=+crt-static" $(CARGO) build --release --locked --target $(HOST) \
		&& install -D target/$(HOST)/release/ai-proxy target/static/ai-proxy; \
	fi
	@ls -l target/static/ai-proxy

clean:
	$(CARGO) clean
