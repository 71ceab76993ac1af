# The binlog decoder under AddressSanitizer and UndefinedBehaviorSanitizer, built aside from the installed one.

FUZZ_EVENTS ?= 1000000
FUZZ_SEED ?= 1
FUZZ := build/fuzz

.PHONY: fuzz soak
fuzz: $(READY)  ## a million mutated binlog events under ASan and UBSan; FUZZ_EVENTS and FUZZ_SEED vary it
	rm -rf $(FUZZ)
	mkdir -p $(FUZZ)/source
	git ls-files -z cdc mapstore setup.py pyproject.toml README.md LICENSE | xargs -0 cp --parents --target-directory $(FUZZ)/source
	CFLAGS="-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer" \
	    $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target $(FUZZ)/installed ./$(FUZZ)/source
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 PYTHONPATH=$(FUZZ)/installed \
	    $(BIN)/python tests/events/fuzz.py $(FUZZ_EVENTS) $(FUZZ_SEED)

soak: $(READY)  ## random tables on a real server until 500,000 values were compared; CDC_PROPERTY_SEED varies it
	CDC_PROPERTY_VALUES=500000 $(BIN)/pytest -q -s tests/mysql/test_rows_property.py
