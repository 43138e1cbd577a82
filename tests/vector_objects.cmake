# Fails when an object of the vector builds (src/kernels/CMakeLists.txt) exports a weak symbol: the linker could take that
# copy, compiled for AVX-512, for the whole program: cmake -DNM=nm -DOBJECTS=a.o,b.o -P tests/vector_objects.cmake
string(REPLACE "," ";" OBJECTS "${OBJECTS}")
execute_process(COMMAND ${NM} -AC --defined-only ${OBJECTS} OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "[^\n]* [WVuwv] [^\n]*" weak "${symbols}")
if(weak)
  list(JOIN weak "\n" lines)
  message(FATAL_ERROR "weak symbols in vector code:\n${lines}")
endif()
string(REGEX MATCH " T [^\n]*vector_ops" exported "${symbols}")
if(NOT exported)
  message(FATAL_ERROR "no table of vector operations among the symbols of ${OBJECTS}")
endif()
