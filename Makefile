# The README's two commands are `make quickstart` and `make test`. Each sets itself up; when nothing
# has changed, nothing is installed again.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
# cpu or gpu; force it with `make quickstart DEVICE=cpu`.
DEVICE ?= $(shell nvidia-smi -L 2>/dev/null | grep -q GPU && echo gpu || echo cpu)
STAMP := $(VENV)/.installed-$(DEVICE)
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH := $(shell grep '^torch==' requirements/cpu.txt)
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu

ifeq ($(DEVICE),cpu)
export CUDA_VISIBLE_DEVICES :=
endif
# The quickstart's few rows fill one device.
quickstart: export CAI_NUM_PROCESSES ?= 1

.PHONY: quickstart test check install bench torture audit clean

quickstart: install
	$(BIN)/cai model pull
	$(BIN)/cai run --constitution harmless.yaml --recipe quickstart

# What loads real models is bound by the memory's speed, the rest by one core: side by side they take
# two thirds of the time. With ARGS it is one pytest.
test: install
	$(BIN)/cai model pull
ifdef ARGS
	$(BIN)/python -m pytest $(ARGS)
else
	@mkdir -p build
	@$(BIN)/python -m pytest -p no:cacheprovider -m "slow or vllm" > build/slow.log 2>&1 & slow=$$!; \
	  trap 'kill $$slow' INT TERM; \
	  OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not vllm"; fast=$$?; \
	  echo "waiting for the tests on real models (build/slow.log)"; \
	  wait $$slow; real=$$?; cat build/slow.log; exit $$((fast || real))
endif

check: install
	$(BIN)/ruff format --check cai tests bench
	$(BIN)/ruff check cai tests bench
	$(BIN)/pyright

bench: install
	$(BIN)/cai model pull
	$(BIN)/python bench/chains.py
	$(BIN)/python bench/startup.py
	$(BIN)/python bench/driver.py
	$(BIN)/python bench/page.py

# The promises of docs/reliability.md, at full length; their table there is written anew. Atheris is
# no part of the lock: without a wheel of it, hypothesis makes the random bytes.
torture: install
	$(BIN)/cai model pull
	test -d build/atheris || $(PIP) install -q --no-deps --only-binary :all: --target build/atheris atheris==3.0.0 || true
	$(BIN)/python tests/torture/run.py $(ARGS)

# The licences of both locks (of the other one's packages pip reads no more than the metadata, a minute
# for the GPU's), and their known vulnerabilities where pip-audit's database answers:
# one that does not know of jinja2 2.10's would find nothing anywhere. pip-audit lists what it could
# not look up, and gets a venv of its own: it is no part of what it audits.
OTHER = $(if $(filter gpu,$(DEVICE)),cpu,gpu)
AUDIT = build/audit/bin/pip-audit --no-deps --disable-pip --progress-spinner off
audit: install
	$(BIN)/python requirements/licenses.py $(DEVICE)
	@$(PYTHON) -m venv build/audit
	@build/audit/bin/python -m pip --disable-pip-version-check install -q -U pip
	build/audit/bin/pip install -q --dry-run --ignore-installed --no-deps --use-feature=fast-deps \
	  --report build/$(OTHER).json -r requirements/$(OTHER).txt && \
	$(BIN)/python requirements/licenses.py $(OTHER) build/$(OTHER).json
	@build/audit/bin/pip install -q pip-audit && \
	echo jinja2==2.10 > build/audit/known.txt && \
	if $(AUDIT) -r build/audit/known.txt 2>/dev/null | grep -qE 'CVE|GHSA|PYSEC'; \
	then $(AUDIT) -r requirements/cpu.txt -r requirements/gpu.txt; \
	else echo "audit skipped: pip-audit's database does not answer"; fi

install: $(STAMP)

$(STAMP): requirements/cpu.txt requirements/gpu.txt pyproject.toml
	@echo "installing for: $(DEVICE) (force it with DEVICE=cpu or DEVICE=gpu)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 is needed: make PYTHON=/path/to/python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
ifeq ($(DEVICE),gpu)
	$(PIP) install -q -r requirements/gpu.txt
else
	$(PIP) install -q --no-deps '$(TORCH)' || $(PIP) install -q --no-deps '$(TORCH)' --index-url $(TORCH_CPU_INDEX)
	$(PIP) install -q --no-deps -r requirements/cpu.txt
endif
	$(PIP) install -q --no-deps --no-build-isolation -e .
	@rm -f $(VENV)/.installed-*
	@touch $@

clean:
	rm -rf $(VENV) build dist
