# The compiler: told in one sentence when it, or a system we know, is not there.

string(CONCAT _polytls_install_compiler
  "install one (Debian, Ubuntu: `apt-get install g++`; Fedora: `dnf install gcc-c++`) "
  "or name it in")

# _polytls_require_compiler(language variable names...): what CMake was told to use, else what the
# environment variable names (pip's build sets it to the compiler that Python was built with), else any
# of the usual names.
function(_polytls_require_compiler language variable)
  set(names "${CMAKE_${language}_COMPILER}")
  if(NOT names)
    separate_arguments(names UNIX_COMMAND "$ENV{${variable}}")
  endif()
  if(names)
    list(GET names 0 names) # the rest are its arguments
    set(where PATHS ENV PATH NO_DEFAULT_PATH) # as CMake itself looks for one that is named
    set(problem "The ${language} compiler ${names} was not found")
  else()
    set(names ${ARGN})
    set(problem "No ${language} compiler was found")
  endif()
  find_program(POLYTLS_${language}_FOUND NAMES ${names} ${where} NO_CACHE)
  if(NOT POLYTLS_${language}_FOUND)
    message(FATAL_ERROR "${problem}; ${_polytls_install_compiler} ${variable}.")
  endif()
endfunction()

macro(polytls_enable_compiler)
  if(NOT CMAKE_HOST_SYSTEM_NAME STREQUAL "Linux"
     OR NOT CMAKE_HOST_SYSTEM_PROCESSOR MATCHES "^(x86_64|aarch64|arm64)$")
    message(FATAL_ERROR
      "PolyTLS cannot be built on ${CMAKE_HOST_SYSTEM_NAME} ${CMAKE_HOST_SYSTEM_PROCESSOR}; "
      "use Linux on x86_64 or 64-bit ARM (a container will do).")
  endif()
  if(NOT CMAKE_BUILD_TYPE)
    set(CMAKE_BUILD_TYPE Release)
  endif()
  _polytls_require_compiler(C CC cc gcc clang)
  _polytls_require_compiler(CXX CXX c++ g++ clang++)
  enable_language(C)
  enable_language(CXX)
endmacro()
