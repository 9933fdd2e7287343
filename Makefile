# `make run` and `make test` do everything on a fresh machine with Python 3.11 or later; uv is used where it is there.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := ray mlflow trackio wandb
comma := ,
space := $() $()

.PHONY: run test test-engines results report docs install clean

run: install
	$(BIN)/resx compare --preset digits
	@echo "The figure is results/findings/degradation-digits/figures/degradation.png (.pdf, .svg)."

test: install
	$(BIN)/ruff format --check resx tests examples
	$(BIN)/ruff check resx tests examples
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

test-engines: install  # tests marked `slow`: they start many processes, or need EXTRAS, which the others do without
	@if command -v uv >/dev/null 2>&1; then \
		uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[$(subst $(space),$(comma),$(EXTRAS))]'; \
	else \
		$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[$(subst $(space),$(comma),$(EXTRAS))]'; \
	fi
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

results: install  # write again what follows from the committed tables: tables, figures and pages
	$(BIN)/resx publish $(dir $(wildcard results/*/experiment.toml))

report: install  # the page of all results, and the statements in README.md
	$(BIN)/resx report -o results/report.html
	$(BIN)/resx report --format markdown -o README.md
	command -v chromium >/dev/null && chromium --headless --no-sandbox --disable-dev-shm-usage --hide-scrollbars \
		--window-size=1280,640 --screenshot=results/report.png file://$(CURDIR)/results/report.html || true

docs: install  # docs/_build/html/index.html
	$(BIN)/python -m sphinx -W -q -b html docs docs/_build/html

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@if command -v uv >/dev/null 2>&1; then \
		uv venv --quiet --allow-existing --python $(PYTHON) $(VENV) && \
		uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[dev,docs,tensorboard]'; \
	else \
		$(PYTHON) -m venv $(VENV) && \
		$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,docs,tensorboard]'; \
	fi
	@touch $@

clean:
	rm -rf $(VENV)
