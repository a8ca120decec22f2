/* score LIBONNXRUNTIME MODEL.onnx PHOTO.ppm...: prints the score of each photograph, 0 worst, 1 best.
 *
 *     gcc -std=c99 -O2 -o score score.c -lm -ldl
 *     ./score libonnxruntime.so.1 pocket-m.onnx photo.ppm
 *
 * LIBONNXRUNTIME is the library of ONNX Runtime 1.1 or newer: of a release, or onnxruntime/capi/libonnxruntime.so.* in
 * the Python wheel. Without its header, the few functions that are needed are taken from their places in the table of
 * its C API, which never change; whoever has onnxruntime_c_api.h calls them by their names. Photographs are binary PPM
 * files (P6): decode yours upright, in sRGB. Large ones are looked at once, as by `pocketiqa score --look quick`.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "pocketiqa_preprocess.h"

typedef void (*Entry)(void);
typedef struct { const Entry *(*table)(uint32_t version); const char *(*version)(void); } Base;

/* Places in the table of version 2 of the C API. Objects of the library are plain pointers here. */
enum {
    GET_ERROR_MESSAGE = 2, CREATE_ENV = 3, CREATE_SESSION = 7, RUN = 9, CREATE_SESSION_OPTIONS = 10,
    CREATE_TENSOR_WITH_DATA = 49, GET_TENSOR_DATA = 51, CREATE_CPU_MEMORY_INFO = 69, GET_ALLOCATOR = 78,
    RELEASE_VALUE = 96, GET_METADATA = 111, LOOKUP_METADATA = 116
};
enum { API_VERSION = 2, WARNING = 2, UINT8 = 2, DEVICE_ALLOCATOR = 0, DEFAULT_MEMORY = 0, MOST_KNOTS = 4096 };

static const Entry *api;

static void fail(const char *what, const char *why) {
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

/* Ends the program if a call returned a status. */
static void check(void *status) {
    if (status) fail("ONNX Runtime", ((const char *(*)(void *))api[GET_ERROR_MESSAGE])(status));
}
#define CALL(place, types, values) check(((void *(*) types)api[place]) values)

static const Entry *open_runtime(const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) fail(path, dlerror());
    const Base *(*get_base)(void);
    *(void **)&get_base = dlsym(library, "OrtGetApiBase"); /* as POSIX words it: C has no such conversion */
    if (!get_base) fail(path, "not the library of ONNX Runtime");
    const Entry *table = get_base()->table(API_VERSION);
    if (!table) fail(path, "ONNX Runtime 1.1 or newer is needed");
    return table;
}

/* The whole number behind the first "key": in JSON text. */
static int number(const char *json, const char *key) {
    const char *at = strstr(json, key);
    if (!at || !(at = strchr(at, ':'))) fail("the model's contract lacks", key);
    return atoi(at + 1);
}

/* The calibration, a broken line through the knots [[raw, score], ...]; a contract with null has none. */
static double calibrated(const char *json, double raw) {
    const char *at = strstr(json, "\"knots\"");
    double x = 0, y = 0, before_x = 0, before_y = 0;
    if (!at || !(at = strchr(at, '['))) return raw;
    for (int knot = 0; knot < MOST_KNOTS && (at = strchr(at + 1, '[')); knot++) {
        char *end;
        x = strtod(at + 1, &end);
        y = strtod(end + 1, &end);
        if (raw <= x) return knot == 0 ? y : before_y + (y - before_y) * (raw - before_x) / (x - before_x);
        before_x = x, before_y = y, at = end;
        if (end[strspn(end, "] ")] != ',') break;
    }
    return y;
}

static int header_number(FILE *file) {
    int value = 0, c = fgetc(file);
    while (c == '#' || c == ' ' || c == '\t' || c == '\n' || c == '\r') {
        if (c == '#') while (c != '\n' && c != EOF) c = fgetc(file);
        c = fgetc(file);
    }
    for (; c >= '0' && c <= '9' && value < 1000000; c = fgetc(file)) value = 10 * value + c - '0';
    return value;
}

/* RGB of a binary PPM file with 8 bits. */
static unsigned char *read_ppm(const char *path, int *height, int *width) {
    FILE *file = fopen(path, "rb");
    if (!file) fail(path, "cannot be opened");
    int is_ppm = fgetc(file) == 'P' && fgetc(file) == '6';
    *width = header_number(file), *height = header_number(file);
    int most = header_number(file);
    if (!is_ppm || *width < 1 || *height < 1 || most != 255) fail(path, "no binary PPM file (P6) with 8 bits");
    size_t size = (size_t)*height * *width * 3;
    unsigned char *rgb = malloc(size);
    if (!rgb || fread(rgb, 1, size, file) != size) fail(path, "shorter than its header says");
    fclose(file);
    return rgb;
}

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr, "usage: %s LIBONNXRUNTIME MODEL.onnx PHOTO.ppm...\n", argv[0]);
        return 2;
    }
    api = open_runtime(argv[1]);
    void *env, *options, *session, *metadata, *allocator, *memory;
    char *contract = NULL;
    CALL(CREATE_ENV, (int, const char *, void **), (WARNING, "pocketiqa", &env));
    CALL(CREATE_SESSION_OPTIONS, (void **), (&options));
    CALL(CREATE_SESSION, (void *, const char *, void *, void **), (env, argv[2], options, &session));
    CALL(GET_METADATA, (void *, void **), (session, &metadata));
    CALL(GET_ALLOCATOR, (void **), (&allocator));
    CALL(LOOKUP_METADATA, (void *, void *, const char *, char **),
         (metadata, allocator, "pocketiqa.contract", &contract));
    if (!contract) fail(argv[2], "holds no contract: it is no student of pocketiqa");
    CALL(CREATE_CPU_MEMORY_INFO, (int, int, void **), (DEVICE_ALLOCATOR, DEFAULT_MEMORY, &memory));
    int max_side = number(contract, "\"max_side\""), min_side = number(contract, "\"min_side\"");
    for (int photo = 3; photo < argc; photo++) {
        int height, width, new_height, new_width;
        unsigned char *rgb = read_ppm(argv[photo], &height, &width);
        pocketiqa_size(height, width, max_side, min_side, &new_height, &new_width);
        unsigned char *input = pocketiqa_resize(rgb, height, width, max_side, min_side);
        if (!input) fail(argv[photo], "not enough memory");
        int64_t shape[4] = {1, new_height, new_width, 3};
        size_t size = (size_t)new_height * new_width * 3;
        void *tensor, *result = NULL;
        float *score;
        const char *in = "rgb", *out = "score";
        CALL(CREATE_TENSOR_WITH_DATA, (void *, void *, size_t, const int64_t *, size_t, int, void **),
             (memory, input, size, shape, 4, UINT8, &tensor));
        CALL(RUN, (void *, void *, const char **, void **, size_t, const char **, size_t, void **),
             (session, NULL, &in, &tensor, 1, &out, 1, &result));
        CALL(GET_TENSOR_DATA, (void *, void **), (result, (void **)&score));
        printf("%.6f %s\n", calibrated(contract, *score), argv[photo]);
        ((void (*)(void *))api[RELEASE_VALUE])(tensor);
        ((void (*)(void *))api[RELEASE_VALUE])(result);
        free(input);
        free(rgb);
    }
    return 0; /* session and environment end with the process */
}
