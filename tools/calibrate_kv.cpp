#include "calibrate_kv_command.h"
#include "command_main.h"

int main(int argc, char** argv) {
  return qwenbench::tools::command_main(argc, argv, qwenbench::tools::calibrate_kv_command);
}
