/* resize HEIGHT WIDTH MAX_SIDE MIN_SIDE < raw RGB > raw RGB: the command by which the port is tested. */
#include <stdio.h>

#include "pocketiqa_preprocess.h"

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: %s HEIGHT WIDTH MAX_SIDE MIN_SIDE < raw RGB > raw RGB\n", argv[0]);
        return 2;
    }
    int height = atoi(argv[1]), width = atoi(argv[2]), max_side = atoi(argv[3]), min_side = atoi(argv[4]);
    if (height < 1 || width < 1 || min_side < 1 || max_side < min_side) {
        fprintf(stderr, "sizes are whole numbers above 0, and MAX_SIDE is at least MIN_SIDE\n");
        return 2;
    }
    size_t size = (size_t)height * width * 3;
    unsigned char *rgb = malloc(size);
    if (!rgb || fread(rgb, 1, size, stdin) != size) {
        fprintf(stderr, "%zu bytes are needed on standard input\n", size);
        return 1;
    }
    int new_height, new_width;
    pocketiqa_size(height, width, max_side, min_side, &new_height, &new_width);
    unsigned char *out = pocketiqa_resize(rgb, height, width, max_side, min_side);
    if (!out) {
        fprintf(stderr, "not enough memory\n");
        return 1;
    }
    fwrite(out, 3, (size_t)new_height * new_width, stdout);
    free(out);
    free(rgb);
    return 0;
}
