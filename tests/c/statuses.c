#include "test.h"
void test_statuses(void) {}
