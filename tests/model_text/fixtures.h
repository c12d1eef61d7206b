#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "base/atomic_file.h"
#include "model/tokenizer.h"

namespace qwenbench::model {

inline nlohmann::json text_fixture(const std::string& name) {
  return nlohmann::json::parse(read_file("model_text/fixtures/" + name));
}

inline const Tokenizer& small_tokenizer() {
  static const Tokenizer tokenizer = Tokenizer::load("model_text/fixtures");
  return tokenizer;
}

/// What() of the Error that `function` throws, or "" where it throws none.
template <class ErrorType, class Function>
std::string message_of(const Function& function) {
  try {
    function();
  } catch (const ErrorType& error) {
    return error.what();
  }
  return "";
}

}  // namespace qwenbench::model
