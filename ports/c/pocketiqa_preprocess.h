/* The resize before a pocketiqa student: RGB bytes in, RGB bytes out, equal to `pocketiqa score` to the byte.
 *
 * One header, C99, needs the C library and libm alone. The specification is docs/preprocess.md; the comments below
 * name its steps. Use it in one source file, or as it is in several: all functions are static.
 *
 *     int height, width;
 *     pocketiqa_size(h, w, max_side, min_side, &height, &width);
 *     unsigned char *input = pocketiqa_resize(rgb, h, w, max_side, min_side);   // height * width * 3 bytes; free() it
 */
#ifndef POCKETIQA_PREPROCESS_H
#define POCKETIQA_PREPROCESS_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define POCKETIQA_BITS 22 /* fraction bits of the integer coefficients */
#define POCKETIQA_GAP 2.0 /* whole pixels are averaged first where the reduction is at least twice this */

/* Step 1. Half-way cases go to the even neighbour. */
static int pocketiqa_scaled(int side, double scale) {
    double value = nearbyint(side * scale); /* the default rounding mode is to even */
    return value < 1 ? 1 : (int)value;
}

static void pocketiqa_size(int height, int width, int max_side, int min_side, int *new_height, int *new_width) {
    int longer = height > width ? height : width, shorter = height > width ? width : height;
    double scale = (double)max_side / longer;
    if (scale > 1) scale = 1;
    int new_longer = pocketiqa_scaled(longer, scale), new_shorter = pocketiqa_scaled(shorter, scale);
    if (new_shorter < min_side) {
        new_shorter = min_side;
        new_longer = pocketiqa_scaled(longer, (double)min_side / shorter);
        if (new_longer < min_side) new_longer = min_side;
        if (new_longer > max_side) new_longer = max_side;
    }
    *new_height = height >= width ? new_longer : new_shorter;
    *new_width = height >= width ? new_shorter : new_longer;
}

/* Step 2. Mean of blocks of fx x fy pixels; blocks at the right and lower edge may be smaller. */
static unsigned char *pocketiqa_reduce(const unsigned char *rgb, int height, int width, int fy, int fx) {
    int rows = (height + fy - 1) / fy, columns = (width + fx - 1) / fx;
    unsigned char *out = malloc((size_t)rows * columns * 3);
    if (!out) return NULL;
    for (int y = 0; y < rows; y++) {
        int bottom = (y + 1) * fy < height ? (y + 1) * fy : height;
        for (int x = 0; x < columns; x++) {
            int right = (x + 1) * fx < width ? (x + 1) * fx : width;
            uint32_t count = (uint32_t)(bottom - y * fy) * (right - x * fx);
            /* float, as in the specification: of 24 bits */
            uint32_t multiplier = (uint32_t)(4294967296.0f / (float)(256u * count));
            for (int c = 0; c < 3; c++) {
                uint32_t sum = count / 2;
                for (int yy = y * fy; yy < bottom; yy++)
                    for (int xx = x * fx; xx < right; xx++) sum += rgb[((size_t)yy * width + xx) * 3 + c];
                out[((size_t)y * columns + x) * 3 + c] = (unsigned char)((sum * multiplier) >> 24);
            }
        }
    }
    return out;
}

static double pocketiqa_hamming(double x) {
    x = fabs(x);
    if (x == 0) return 1;
    if (x >= 1) return 0;
    x *= 3.14159265358979323846;
    return sin(x) / x * (0.54f + 0.46f * cos(x)); /* 0.54 and 0.46 as 32-bit floats */
}

static double pocketiqa_bicubic(double x) {
    const double a = -0.5;
    x = fabs(x);
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
    return 0;
}

/* Step 3. First source pixel, number of source pixels and integer coefficients of each of `out` pixels along one side.
 * `extent` is the part of the `in` source pixels that is the picture. Returns the room for the coefficients of a pixel;
 * 0 without memory. */
static int pocketiqa_coefficients(int in, float extent, int out, int grows, int **first, int **count, int32_t **k) {
    double (*filter)(double) = grows ? pocketiqa_bicubic : pocketiqa_hamming;
    double scale = (double)extent / out, stretch = scale < 1 ? 1 : scale;
    double support = (grows ? 2.0 : 1.0) * stretch;
    int room = (int)ceil(support) * 2 + 1;
    double *weight = malloc(sizeof(double) * room);
    *first = malloc(sizeof(int) * out);
    *count = malloc(sizeof(int) * out);
    *k = malloc(sizeof(int32_t) * (size_t)room * out);
    if (!weight || !*first || !*count || !*k) {
        free(weight);
        return 0;
    }
    for (int at = 0; at < out; at++) {
        double centre = (at + 0.5) * scale, total = 0;
        int low = (int)(centre - support + 0.5), high = (int)(centre + support + 0.5);
        if (low < 0) low = 0;
        if (high > in) high = in;
        for (int i = 0; i < high - low; i++) total += weight[i] = filter((i + low - centre + 0.5) * (1.0 / stretch));
        for (int i = 0; i < high - low; i++) {
            double value = (total != 0 ? weight[i] / total : weight[i]) * (1 << POCKETIQA_BITS);
            (*k)[(size_t)at * room + i] = (int32_t)(value < 0 ? value - 0.5 : value + 0.5);
        }
        (*first)[at] = low;
        (*count)[at] = high - low;
    }
    free(weight);
    return room;
}

/* One direction of step 3: each line of `in` pixels becomes one of `out` pixels. `step` is the distance of neighbours
 * along the line and `next` that of lines, in pixels, for source and result. */
static int pocketiqa_pass(const unsigned char *source, unsigned char *result, int lines, int in, float extent, int out,
                          int grows, const size_t step[2], const size_t next[2]) {
    int *first = NULL, *count = NULL;
    int32_t *k = NULL;
    int room = pocketiqa_coefficients(in, extent, out, grows, &first, &count, &k);
    for (int line = 0; room && line < lines; line++)
        for (int at = 0; at < out; at++)
            for (int c = 0; c < 3; c++) {
                int32_t sum = 1 << (POCKETIQA_BITS - 1);
                for (int i = 0; i < count[at]; i++)
                    sum += k[(size_t)at * room + i] * source[(line * next[0] + (first[at] + i) * step[0]) * 3 + c];
                /* Negative sums exist in step 3 with bicubic alone: rounded down, then clipped. */
                int32_t value = sum < 0 ? 0 : sum >> POCKETIQA_BITS;
                result[(line * next[1] + at * step[1]) * 3 + c] = (unsigned char)(value > 255 ? 255 : value);
            }
    free(first);
    free(count);
    free(k);
    return room > 0;
}

/* The whole resize. Returns new memory of pocketiqa_size() pixels, to be freed by the caller; NULL without memory. */
static unsigned char *pocketiqa_resize(const unsigned char *rgb, int height, int width, int max_side, int min_side) {
    int out_h, out_w, ok = 1;
    pocketiqa_size(height, width, max_side, min_side, &out_h, &out_w);
    /* Bicubic where a side grows, else Hamming: decided before step 2. */
    int grows = out_h > height || out_w > width;
    int fx = (int)((double)width / out_w / POCKETIQA_GAP), fy = (int)((double)height / out_h / POCKETIQA_GAP);
    if (fx < 1) fx = 1;
    if (fy < 1) fy = 1;
    int rows = (height + fy - 1) / fy, columns = (width + fx - 1) / fx;
    float extent_y = (float)((double)height / fy), extent_x = (float)((double)width / fx);
    unsigned char *image = pocketiqa_reduce(rgb, height, width, fy, fx); /* a copy where both factors are 1 */
    /* A direction in which nothing changes is left out; one with a cut last block changes. */
    int across = columns != out_w || extent_x != (float)out_w, down = rows != out_h || extent_y != (float)out_h;
    /* Rounding between the passes makes their order matter: down first where the height falls by far more. */
    int down_first = rows > out_h && rows - out_h > 2 * (columns - out_w);
    for (int pass = 0; pass < 2 && image && ok; pass++) {
        int vertical = (pass == 0) == down_first;
        if (vertical ? !down : !across) continue;
        int lines = vertical ? columns : rows, wide = vertical ? columns : out_w;
        unsigned char *next = malloc((size_t)(vertical ? out_h : rows) * wide * 3);
        size_t steps[2] = {vertical ? columns : 1, vertical ? columns : 1};
        size_t starts[2] = {vertical ? 1 : columns, vertical ? 1 : out_w};
        ok = next && (vertical ? pocketiqa_pass(image, next, lines, rows, extent_y, out_h, grows, steps, starts)
                               : pocketiqa_pass(image, next, lines, columns, extent_x, out_w, grows, steps, starts));
        free(image);
        image = next;
        if (vertical) rows = out_h;
        else columns = out_w;
    }
    if (!ok) {
        free(image);
        return NULL;
    }
    return image;
}

#endif
