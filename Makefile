# Everything sets itself up: `make demo` and `make test` work in a fresh clone with Python 3.11 and pip.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
export MPLBACKEND := Agg

.PHONY: demo test lint types unit doctest notebooks setup clean

setup: $(READY)

# torch goes first and alone, so that the pinned build decides what the others find installed.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		-e ".[train,notebooks,dev]"
	touch $@

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

unit: $(READY)
	$(BIN)/pytest -q -n 2 tests

doctest: $(READY)
	$(BIN)/pytest -q --doctest-modules pyro_vdn models guides

notebooks: $(READY)
	$(BIN)/pytest -q -n 2 --nbmake --nbmake-timeout=300 notebooks

clean:
	rm -rf .venv build dist *.egg-info
