#include "command_main.h"
#include "compare_command.h"

int main(int argc, char** argv) {
  return qwenbench::tools::command_main(argc, argv, qwenbench::tools::compare_command);
}
