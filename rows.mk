# Mutated text results against the specification, with the compiled reader under AddressSanitizer and
# UndefinedBehaviorSanitizer, built aside from the installed one. Python's own allocator is off: the sanitizer sees every buffer.

FUZZ_MINUTES ?= 10
FUZZ_ROWS := build/fuzz-rows

.PHONY: fuzz-rows
fuzz: fuzz-rows

fuzz-rows: $(READY)  ## mutated results of SELECT under ASan and UBSan for FUZZ_MINUTES; part of fuzz
	rm -rf $(FUZZ_ROWS)
	mkdir -p $(FUZZ_ROWS)
	git ls-files -z 'cdc/*.py' | xargs -0 cp --parents --target-directory $(FUZZ_ROWS)
	cp cdc/mysql/_events.*.so $(FUZZ_ROWS)/cdc/mysql/
	$(BIN)/cython -3 -o $(FUZZ_ROWS)/_rows.c cdc/mysql/_rows.pyx
	gcc -shared -fPIC -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer \
	    -I"$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include"))')" \
	    -o $(FUZZ_ROWS)/cdc/mysql/_rows.so $(FUZZ_ROWS)/_rows.c
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 PYTHONMALLOC=malloc PYTHONPATH=$(FUZZ_ROWS):. \
	    $(BIN)/python -P -m tests.fuzz_rows --minutes $(FUZZ_MINUTES)
