# Two commands do everything on a fresh machine with Python 3.11 or newer: make demo, make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= demo
LOWEST ?= /tmp/covermap-lowest

.PHONY: demo docs test test-slow test-lowest coverage check browser pictures clean

# --no-compile halves the time: Python compiles what is imported, when it is imported, a fraction of what is installed.
$(VENV)/installed: pyproject.toml constraints.txt package-lock.json
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable '.[ml,track,stac,parquet,onnx,ray,hpo,web,dev]'
	$(BIN)/python packaging/backend.py tests
	touch $@

demo: $(VENV)/installed
	$(BIN)/covermap demo $(OUT) --overwrite

# One thread for each of the two processes: more would only wait for each other.
test: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(VENV)/installed
	$(BIN)/python -m pytest -m slow

# Branches that the tests of `make test` take, in this process and its threads.
coverage: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --cov=covermap --cov-branch --cov-report=json:coverage.json
	$(BIN)/python packaging/branches.py coverage.json

# The lowest versions that pyproject.toml allows (but of torch), in an environment of their own.
test-lowest:
	$(PYTHON) -m venv $(LOWEST)
	$(PYTHON) packaging/lowest.py > $(LOWEST)/lowest.txt
	$(LOWEST)/bin/pip install --quiet --no-compile --disable-pip-version-check --constraint $(LOWEST)/lowest.txt '.[ml,track,stac,parquet,onnx,ray,hpo,umap,web,dev]'
	PYTHONPATH=. OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n 2 --dist loadfile tests/core tests/geo tests/data tests/metrics tests/ml tests/cli

check: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest tests/test_house.py

# Chromium for the tests of the viewer's page, from Debian's packages; needs the right to install.
browser:
	command -v chromium >/dev/null || (apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium)

# docs/reference/, from the code.
docs: $(VENV)/installed
	$(BIN)/python packaging/reference.py

# Those of README.md, from the demo.
pictures: demo browser
	$(BIN)/python packaging/pictures.py $(OUT)

clean:
	rm -rf $(VENV) build dist *.egg-info demo runs node_modules covermap/view/page/vendor
