# The map's tests with its compiled code under AddressSanitizer and UndefinedBehaviorSanitizer. Python itself is not
# instrumented: its own allocator is switched off, so that the sanitizer sees every object, and leaks at exit are its own.

.PHONY: sanitize
sanitize: $(READY)  ## the map's tests under ASan and UBSan
	MAPSTORE_CFLAGS="-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer" \
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 PYTHONMALLOC=malloc \
	$(BIN)/python -m pytest -q -p no:cacheprovider --capture=sys --timeout=1800 tests/mapstore
