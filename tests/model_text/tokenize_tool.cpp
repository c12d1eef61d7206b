// Ids for scripts: `tokenize_tool MODEL_DIR` reads texts from stdin, each as its length in bytes on a line and then the
// bytes, and prints one line of ids for each. An Error is printed on stderr (exit 2).
#include <iostream>
#include <string>

#include "base/error.h"
#include "model/tokenizer.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: tokenize_tool MODEL_DIR < texts\n";
    return 2;
  }
  try {
    const auto tokenizer = qwenbench::model::Tokenizer::load(argv[1]);
    for (std::string line; std::getline(std::cin, line);) {
      std::string text(std::stoul(line), '\0');
      std::cin.read(text.data(), static_cast<std::streamsize>(text.size()));
      for (const auto id : tokenizer.encode(text)) std::cout << id << ' ';
      std::cout << '\n';
    }
  } catch (const qwenbench::Error& error) {
    std::cerr << error.what() << '\n';
    return 2;
  }
}
