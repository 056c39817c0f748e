// Promises of os/symbols.hpp: exported names, names that only the file's own table has, instructions of nobody.
#include "os/symbols.hpp"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <string>

// External linkage and no namespace, so that the expected names are short.
__attribute__((noinline)) int a_function_of_the_test(int value) {
  asm volatile("" : "+r"(value));
  return value + 1;
}
static __attribute__((noinline)) int a_static_one(int value) {
  asm volatile("" : "+r"(value));
  return value + 2;
}

// As musl's memset is: in assembler, with no size and no entry for unwinding.
asm(R"(
.text
.globl an_assembler_function
.type an_assembler_function, %function
an_assembler_function:
  nop
  nop
  nop
  nop
  nop
  nop
  nop
  nop
  ret
.globl the_one_after_it
.type the_one_after_it, %function
the_one_after_it:
  nop
  nop
  nop
  nop
  ret
.size the_one_after_it, .-the_one_after_it
)");
extern "C" void an_assembler_function();
extern "C" void the_one_after_it();

namespace rtpool::os {
namespace {

template <class Pointer>
std::uintptr_t at(Pointer* function) {
  return reinterpret_cast<std::uintptr_t>(reinterpret_cast<void*>(function));
}

TEST(Symbols, TheProgramsOwnFunctions) {
  EXPECT_EQ(a_function_of_the_test(1) + a_static_one(1), 5);
  const Function one = find_function(at(&a_function_of_the_test) + 2);
  EXPECT_STREQ(one.name, "a_function_of_the_test(int)");
  EXPECT_EQ(one.begin, at(&a_function_of_the_test));
  EXPECT_NE(std::string(one.object).find("_test"), std::string::npos) << one.object;
  EXPECT_GT(one.offset, 0U);
  const Function other = find_function(at(&a_static_one) + 1);
  EXPECT_NE(std::string(other.name).find("a_static_one"), std::string::npos) << other.name;
  EXPECT_FALSE(other.kernel);
}

TEST(Symbols, AFunctionWithoutASizeEndsBeforeTheNextOne) {
  const Function one = find_function(at(&an_assembler_function) + 4);
  EXPECT_STREQ(one.name, "an_assembler_function");
  EXPECT_EQ(one.begin, at(&an_assembler_function));
  EXPECT_STREQ(find_function(at(&the_one_after_it) + 4).name, "the_one_after_it");
}

TEST(Symbols, ALibrarysExportedFunction) {
  const Function function = find_function(at(&::qsort) + 1);
  EXPECT_NE(std::string(function.name).find("qsort"), std::string::npos) << function.name;
  EXPECT_NE(std::string(function.object).find(".so"), std::string::npos) << function.object;
}

TEST(Symbols, InstructionsOfNobody) {
  static char nowhere[16];
  EXPECT_STREQ(find_function(8).name, "");
  EXPECT_STREQ(find_function(8).object, "");
  EXPECT_STREQ(find_function(reinterpret_cast<std::uintptr_t>(nowhere)).name, "");
  EXPECT_TRUE(find_function(UINTPTR_MAX - 100).kernel);
}

}  // namespace
}  // namespace rtpool::os
