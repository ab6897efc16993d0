# Every target creates .venv and installs what it needs by itself.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
WITH_PEERS := .venv/.installed-bench
WITH_SPHINX := .venv/.installed-docs

.PHONY: demo test test-isa coverage lint docs links wheels bench results-table sanitize clean

NATIVE := hatch_build.py $(wildcard src/organics/kernels/cpp/*pp src/organics/kernels/cpp/cells/*pp)

# with the peers or Sphinx at once, not after it, as each installation builds the kernel
EXTRAS := dev
$(WITH_PEERS): EXTRAS := dev,bench
$(WITH_SPHINX): EXTRAS := dev,docs
$(INSTALLED) $(WITH_PEERS) $(WITH_SPHINX): pyproject.toml $(NATIVE)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS)]'
	touch $(INSTALLED) $@

demo: $(INSTALLED)
	$(BIN)/organics demo $(ARGS)

test: $(INSTALLED)
	$(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

# those that are most sensitive to rounding, with the instructions of an older processor: in XLA, in
# the native kernel and in LAPACK
test-isa: $(INSTALLED)
	XLA_FLAGS="$$XLA_FLAGS --xla_cpu_max_isa=SSE4_2" ORGANICS_ISA=base OPENBLAS_CORETYPE=Nehalem \
	$(BIN)/python -m pytest -n auto --dist worksteal -m rounding $(ARGS)

# the tests, and which lines they run; before Python 3.12 they take a quarter to a half longer
coverage: $(INSTALLED)
	$(BIN)/python -m pytest -n auto --dist worksteal --cov --cov-report=term --cov-fail-under=90 $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# the documentation, as pages in build/docs; runs the tutorials and the gallery, and a warning, such
# as a link to nowhere, is an error
docs: $(WITH_SPHINX)
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs build/docs $(ARGS)
	@echo "build/docs/index.html"

# whether the links to other places still lead somewhere; needs a network, and runs no program
links: $(WITH_SPHINX)
	$(BIN)/python -m sphinx -b linkcheck -D plot_gallery=0 --quiet docs build/links $(ARGS)

# with PyTorch, which the recurrent layer is measured against
bench: $(WITH_PEERS)
	$(BIN)/python -m benchmarks $(ARGS)

# a wheel with the kernel in build/wheels, tried in a new environment without a compiler
wheels:
	.ci/wheel $(PYTHON)

# the tables of claims, from results/; with ARGS=--check, only whether they are there
results-table: $(INSTALLED)
	$(BIN)/python -m organics.studies.harness.claims results docs/claims.md $(ARGS)

# the native kernel's tests with the sanitizers for addresses and undefined behaviour
SANITIZED := build/sanitized/liborganics.so
sanitize: $(INSTALLED)
	$(BIN)/python hatch_build.py $(SANITIZED) -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all
	LD_PRELOAD="$$($${CXX:-c++} -print-file-name=libasan.so) $$($${CXX:-c++} -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0 ORGANICS_LIBRARY=$(SANITIZED) \
	$(BIN)/python -m pytest tests/test_kernels.py tests/test_cells.py tests/test_rounding.py tests/test_enumeration.py -k native $(ARGS)

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis
