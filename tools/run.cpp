#include "command_main.h"
#include "run_command.h"

int main(int argc, char** argv) { return qwenbench::tools::command_main(argc, argv, qwenbench::tools::run_command); }
