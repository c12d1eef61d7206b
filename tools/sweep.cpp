#include "command_main.h"
#include "sweep_command.h"

int main(int argc, char** argv) { return qwenbench::tools::command_main(argc, argv, qwenbench::tools::sweep_command); }
