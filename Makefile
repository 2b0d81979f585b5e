# Everything one does with this checkout. `make` alone lists it.

.DEFAULT_GOAL := help

# Where .ci/run puts the tools that it does not build.
export PATH := $(CURDIR)/target/ci-tools/bin:$(PATH)

# Without cargo-nextest the same tests run, one test binary after the other.
RUN_TESTS := $(if $(shell command -v cargo-nextest),cargo nextest run,cargo test)

# The container client, its flags for building (such as --network=host), the images' tag, and what they are made from.
DOCKER ?= docker
DOCKER_BUILD_FLAGS ?=
COMPOSE ?= $(if $(shell $(DOCKER) compose version 2>/dev/null),$(DOCKER) compose,docker-compose)
IMAGE_TAG ?= dev
BUILD_IMAGE ?= rust:1.95-bookworm
RUNTIME_IMAGE ?= debian:bookworm-slim

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: ## build in release and start a local cluster on 127.0.0.1:8080 (data in ./.cairn)
	cargo build --release
	./target/release/cairn dev

.PHONY: build
build: ## build the three binaries in release
	cargo build --release

.PHONY: test
test: export CAIRN_BIN_DIR ?= $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)/debug
test: ## every test that needs no container
	cargo build --workspace --bins
ifneq ($(RUN_TESTS),cargo test)
	cargo test --workspace --doc
endif
	$(RUN_TESTS) --workspace

# What the tests over containers are: a feature, so that nothing else builds their dependencies.
CONTAINER_TESTS := --workspace --features cairn-system-tests/containers

.PHONY: test-integration
test-integration: export IMAGE_TAG := $(IMAGE_TAG)
test-integration: ## the tests over containers, on images that it builds; without Docker it says what it leaves out
	@if $(DOCKER) info >/dev/null 2>&1; then \
		.ci/base-images && $(MAKE) images && RUST_TEST_THREADS=1 $(RUN_TESTS) $(CONTAINER_TESTS) --test containers; \
	else \
		echo "SKIPPED: there is no Docker here ($(DOCKER) info), so the tests in system-tests/tests/containers did not run."; \
	fi

.PHONY: check
check: ## formatting, clippy, documentation, dependencies, spelling
	cargo fmt --all --check
	cargo clippy $(CONTAINER_TESTS) --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
	cargo deny check bans licenses sources
	typos

.PHONY: manifests
manifests: ## check the Kubernetes manifests (wants kubernetes-validate; with kubectl also what the overlays make)
	kubernetes-validate --strict --quiet $(filter-out %/kustomization.yaml,$(wildcard k8s/*/*.yaml k8s/*/*/*.yaml))
ifneq ($(shell command -v kubectl),)
	set -e; for cluster in k8s k8s/overlays/*; do \
	    rendered=$$(kubectl kustomize $$cluster); echo "$$rendered" | kubernetes-validate --strict --quiet -; done
endif

.PHONY: rules
rules: ## check Prometheus' alert rules and their tests (wants promtool)
	promtool check rules deploy/prometheus/rules.yml
	cd deploy/prometheus && promtool test rules rules.test.yml

.PHONY: audit
audit: ## known advisories against our dependencies (needs the network)
	cargo deny check advisories

.PHONY: openapi
openapi: ## rewrite the OpenAPI documents from the handlers, and the README's settings from the flags
	EXPECTORATE=overwrite $(RUN_TESTS) -p cairn-api-spec openapi
	EXPECTORATE=overwrite $(RUN_TESTS) -p cairn readme_lists

.PHONY: proto
proto: ## rewrite the messages of peers from their .proto files
	EXPECTORATE=overwrite $(RUN_TESTS) -p cairn-api-spec proto_files

.PHONY: bench
bench: ## compare with nginx and webdis + redis (RUNS=3 DURATION=5; results in target/bench)
	cargo build --release
	python3 bench/run.py

.PHONY: images
images: ## build the container images cairn-master:dev and cairn-node:dev (no image registry: .ci/base-images first)
	for server in master node; do \
		DOCKER_BUILDKIT=1 $(DOCKER) build $(DOCKER_BUILD_FLAGS) --file Dockerfile_$$server --tag cairn-$$server:$(IMAGE_TAG) \
			--build-arg BUILD_IMAGE=$(BUILD_IMAGE) --build-arg RUNTIME_IMAGE=$(RUNTIME_IMAGE) \
			--build-arg VERSION=$(IMAGE_TAG) . || exit; \
	done

.PHONY: compose-up
compose-up: images ## start master, three nodes, object store, Prometheus, Grafana and Jaeger in containers
	IMAGE_TAG=$(IMAGE_TAG) $(COMPOSE) --file deploy/compose.yaml up --detach

.PHONY: compose-down
compose-down: ## stop those containers; their volumes keep the data
	$(COMPOSE) --file deploy/compose.yaml down

.PHONY: clean-data
clean-data: ## delete the local cluster's data
	rm -rf .cairn
