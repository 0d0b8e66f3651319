#include "mqctl.h"
int
cmd_top(struct spool *sp, int argc, char *argv[])
{
	(void)sp, (void)argc, (void)argv;
	return 0;
}
