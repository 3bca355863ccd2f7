# Everything sets itself up: `make demo` and `make test` work in a fresh clone with Python 3.11 and pip.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
ARVIZ1 := .venv/arviz1
# A Python for the test on ArviZ 1.x, which this project's own Python may be too old for.
PYTHON_ARVIZ1 ?= python3.13 python3.12 $(wildcard $(HOME)/.pyenv/versions/3.1[32].*/bin/python)
export MPLBACKEND := Agg

.PHONY: demo test lint types unit doctest notebooks setup clean

setup: $(READY) $(ARVIZ1)/.ready

# torch goes first and alone, so that the pinned build decides what the others find installed.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		-e ".[train,notebooks,dev]"
	touch $@

# A small environment, numpy and ArviZ alone; without a Python for it the test is skipped.
$(ARVIZ1)/.ready: pyproject.toml
	mkdir -p $(ARVIZ1)
	@for python in $(PYTHON_ARVIZ1); do \
		$$python -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null || continue; \
		$$python -m venv $(ARVIZ1) && $(ARVIZ1)/bin/python -m pip install --quiet \
			--disable-pip-version-check "arviz>=1,<2" h5netcdf h5py matplotlib && touch $@ && exit; \
		rm -rf $(ARVIZ1)/bin; \
	done; echo "no Python 3.12 or 3.13 with ArviZ 1.x: the test on it will be skipped"; touch $@

demo: $(READY)
	$(BIN)/pyro-vdn fit forecasting --demo --out runs/demo-$$(date +%Y%m%d-%H%M%S)

test: lint types unit doctest notebooks

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy reads the tree as it is installed: models/ and guides/ inside the package.
types: $(READY)
	rm -rf build/types && mkdir -p build/types
	cp -r pyro_vdn build/types/ && cp -r models guides build/types/pyro_vdn/
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p pyro_vdn

unit: $(READY) $(ARVIZ1)/.ready
	$(BIN)/pytest -q -n 2 --dist worksteal tests

doctest: $(READY)
	$(BIN)/pytest -q --doctest-modules pyro_vdn models guides

notebooks: $(READY)
	$(BIN)/pytest -q -n 2 --nbmake --nbmake-timeout=300 notebooks

clean:
	rm -rf .venv build dist *.egg-info
