/* Reads values as .config does: `test-config kind text` prints the value, or "wrong". */
#include "../config.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

int
main(int argc, char *argv[])
{
	static const char *const kinds[] = {
	    [CONFIG_COUNT] = "count",   [CONFIG_SIZE] = "size",     [CONFIG_TIME] = "time",
	    [CONFIG_YES_NO] = "yes-no", [CONFIG_STATUS] = "status",
	};
	uint64_t value;

	for (unsigned k = 0; argc == 3 && k < sizeof kinds / sizeof kinds[0]; k++) {
		if (strcmp(argv[1], kinds[k]) != 0)
			continue;
		if (config_value((enum config_kind)k, argv[2], &value) == 0)
			printf("%" PRIu64 "\n", value);
		else
			puts("wrong");
		return 0;
	}
	return 100;
}
