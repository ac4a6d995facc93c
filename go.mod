module github.com/fairleadhq/fairlead

go 1.26
